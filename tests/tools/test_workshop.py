"""The workshop kit: what is handed out, what the instructor gets, slides, and packages."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat import NotebookNode
from packaging.requirements import Requirement

from tools import lessons
from tools.kit import slides, workshop
from tools.lessons import FOLDER, every, exercises, read, tags, taught, text, with_solutions
from tools.update import PRISTINE, pristine

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
TAUGHT = taught()
# A relative link of Markdown, without the place in the file that it names.
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit as it is written, before anything in it runs."""
    kit = tmp_path_factory.mktemp("workshop") / "kit"
    assert workshop.main(["--kit", str(kit), "--no-run"]) == 0
    return kit


def handed(kit: Path, path: Path) -> NotebookNode:
    return read(kit / "participants" / "notebooks" / path.relative_to(FOLDER))


def lead_nowhere(path: Path) -> list[str]:
    """The relative links in a notebook's prose that lead to no file."""
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    targets = [target for source in prose for target in LINK.findall(source)]
    assert targets, path
    return [target for target in targets if not (path.parent / target).exists()]


# What participants get.


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_a_students_notebook_is_the_lesson_that_the_tests_run(kit: Path, path: Path) -> None:
    """Cell by cell: the code is that which nbval runs, and only solutions differ in words."""
    lesson, student = read(path), handed(kit, path)
    for cell, other in zip(lesson.cells, student.cells, strict=True):
        assert (other.id, other.cell_type) == (cell.id, cell.cell_type)
        if "solution" in tags(cell):
            assert other.source == workshop.WITHHELD
        else:
            assert other.source == workshop.otherwise(cell.source)
        if other.cell_type == "code":
            assert other.outputs == [] and other.execution_count is None
    nbformat.validate(student)
    start = "".join(cell.source for cell in read(TAUGHT[0]).cells)
    assert all(words in start for words in workshop.OTHERWISE)
    left = "\n".join(cell.source for cell in student.cells)
    for exercise in exercises(lesson):
        assert exercise.code not in left


def test_the_copy_is_whole_and_holds_each_lesson_twice(kit: Path) -> None:
    copy = kit / "participants"
    for path in every():
        place = path.relative_to(FOLDER)
        published = (copy / PRISTINE / place).read_bytes()
        assert (copy / "notebooks" / place).read_bytes() == published
    for name in workshop.COPIED:
        assert (copy / name).exists(), name
    assert not list(copy.rglob("__pycache__")) and not (copy / "site" / "instructor").exists()
    with zipfile.ZipFile(kit / "participants.zip") as packed:
        files = {name for name in packed.namelist() if not name.endswith("/")}
    assert files == {path.relative_to(kit).as_posix() for path in copy.rglob("*") if path.is_file()}


def test_a_notebook_that_fails_is_named_with_its_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lessons, "LESSONS", ("00_x",))
    monkeypatch.setattr(lessons, "SIDE_LESSONS", ())
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell("1 / 0", id="the-cell")]
    monkeypatch.setattr(workshop, "SAYS", {"participants": workshop.SAYS["participants"]})
    workshop.write_text(text(nb), tmp_path / "participants" / "notebooks" / "00_x.ipynb")
    assert workshop.run_all(tmp_path, at_once=1) == 1
    said = capsys.readouterr().err
    assert "participants/00_x.ipynb: cell 0 (the-cell): ZeroDivisionError" in said


@pytest.mark.parametrize("kind", workshop.SAYS)
def test_an_exercise_that_says_the_wrong_thing_fails(tmp_path: Path, kind: str) -> None:
    (wrong,) = set(workshop.SAYS.values()) - {workshop.SAYS[kind]}
    nb = nbformat.v4.new_notebook()
    where = {"id": "stub", "metadata": {"tags": ["exercise"]}}
    nb.cells = [nbformat.v4.new_code_cell(f"print({wrong!r})", **where)]
    path = tmp_path / "notebooks" / "x.ipynb"
    path.parent.mkdir()
    with pytest.raises(workshop.LessonError, match=f"{kind}/x.ipynb: exercise stub says '{wrong}"):
        workshop.run(nb, kind, path)
    nb.cells[0].source = f"print({workshop.SAYS[kind]!r})"
    workshop.run(nb, kind, path)


def test_the_copys_makefile_has_what_works_there_and_no_more() -> None:
    course = (ROOT / "Makefile").read_text(encoding="utf-8")
    ours = workshop.makefile(course)
    phony = re.search(r"^\.PHONY: (.*)$", ours, re.M)[1].split()
    assert set(phony) == workshop.COMMANDS
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", ours, re.M)
    assert {name for rule in rules for name in rule.split()} == workshop.COMMANDS
    listed = set(re.findall(r"^\t@echo 'make (\w+) ", ours, re.M))
    assert listed == workshop.COMMANDS - {"help", "environment", "environment-dev"}
    # All lines are the course's own, so that a command there does what it does here.
    assert set(ours.splitlines()) - set(course.splitlines()) == {f".PHONY: {' '.join(phony)}"}


@pytest.mark.skipif(shutil.which("make") is None, reason="There is no make")
def test_the_copys_commands_start(kit: Path) -> None:
    listing = subprocess.run(
        ["make", "-s", "help", f"PYTHON={sys.executable}"],
        cwd=kit / "participants",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "make lab" in listing and "make test" not in listing
    again = [sys.executable, "tools/update.py", "--pristine", "03"]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        again, cwd=kit / "participants", capture_output=True, text=True, env=quiet
    )
    assert done.returncode == 0 and "already" in done.stdout, done.stderr


def test_a_copys_readme_links_to_what_is_there(kit: Path) -> None:
    for kind in workshop.SAYS:
        readme = (kit / kind / "README.md").read_text(encoding="utf-8")
        for heading in ("The lessons", "Licence"):
            assert readme.count(f"\n## {heading}\n") == 1
        assert not re.search(r"{{|}}|make (update|test|workshop)", readme)
        targets = LINK.findall(readme)
        assert len(targets) > len(lessons.LESSONS)
        for target in targets:
            assert (kit / kind / target).exists(), target


@pytest.mark.parametrize("path", every(), ids=lambda path: path.stem)
def test_a_copys_links_lead_to_what_is_there(kit: Path, path: Path) -> None:
    for kind in workshop.SAYS:
        assert not lead_nowhere(kit / kind / "notebooks" / path.relative_to(FOLDER)), kind


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    assert workshop.main(["--kit", str(tmp_path), "--no-run"]) == 1
    assert "has other files in it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# What the instructor gets.


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_the_instructors_notebook(
    kit: Path, path: Path
) -> None:
    nb = read(kit / "instructor" / "notebooks" / path.relative_to(FOLDER))
    added = [cell for cell in nb.cells if cell.id.startswith("notes")]
    rest = [cell for cell in nb.cells if not cell.id.startswith("notes")]
    solved = with_solutions(read(path)).cells
    assert [(c.id, c.source) for c in rest] == [(c.id, c.source) for c in solved]
    if path in lessons.side_paths() and not workshop.notes(path.stem):
        return
    assert nb.cells[1].id == "notes" and "## Checkpoint" in nb.cells[1].source
    # A note before each section that the page gives minutes and a link.
    page = workshop.notes(path.stem)
    wanted = re.findall(r"^\| *\[[^\]]+\]\([^)#]*#([^)]+)\) *\| *\d+ *\|", page, re.M)
    assert [cell.id for cell in added[1:]] == [f"notes-{name}"[:64] for name in wanted]
    assert wanted


def test_the_guide_is_one_page_whose_links_resolve(kit: Path) -> None:
    page = (kit / "instructor" / "guide.html").read_text(encoding="utf-8")
    names = re.findall(r'<article id="([^"]+)"', page)
    assert names == ["guide", *(path.stem for path in TAUGHT if workshop.notes(path.stem))]
    links = re.findall(r'href="([^"]+)"', page)
    for link in links:
        if not link.startswith(("http", "#")):
            assert (kit / "instructor" / link).exists(), link
        if link.startswith("#"):
            assert link[1:] in names, link
    assert "site/glossary.md" in links and set(names[1:]) <= {link[1:] for link in links}
    # What a link to a notebook said is there without the link.
    assert "notebooks/" not in "".join(links) and "00 §1 Is everything in place?" in page
    assert page.count("<table") > 2 * len(lessons.LESSONS)


# Side lessons, and the questions that people ask: notebooks in folders below.


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of lesson 00, two side lessons, one of them with notes, and a question."""
    monkeypatch.setattr(lessons, "LESSONS", ("00_start_here",))
    monkeypatch.setattr(lessons, "SIDE_LESSONS", ("00_aside", "00_without_notes"))
    monkeypatch.setattr(lessons, "ASKED", ("how_large",))
    root = tmp_path / "course"
    workshop.copy_course(ROOT, root, "instructor")
    folder = root / "notebooks"
    shutil.copy(FOLDER / "00_start_here.ipynb", folder)
    for name in lessons.SIDE_LESSONS:
        workshop.write_text(text(aside()), folder / "more" / f"{name}.ipynb")
    question = aside()
    question.cells[2].outputs = [nbformat.v4.new_output("stream", text="An answer.\n")]
    workshop.write_text(text(question), folder / "asked" / "how_large.ipynb")
    for name in ("more/my_own", "asked/my_own"):  # a reader's, so no part of the course
        shutil.copy(FOLDER / "00_start_here.ipynb", folder / f"{name}.ipynb")
    notes = root / workshop.NOTES
    workshop.write_text("# Guide\n\nSee [the aside](00_aside.md#checkpoint).\n", notes / "guide.md")
    workshop.write_text(NOTES, notes / "00_aside.md")
    return root


NOTES = """# 00 An aside

The [guide](guide.md), [the lesson before](00_start_here.md), a [word](../glossary.md#logits),
[itself](../../notebooks/more/00_aside.ipynb) and
[a question](../../notebooks/asked/how_large.ipynb).

| section | minutes | ask | watch for |
|:--|--:|:--|:--|
| [1. One](../../notebooks/more/00_aside.ipynb#one) | 7 | How many? | [A word](../glossary.md) |
"""
LOOK = """from pathlib import Path

import helpers
from helpers.checks import start_here as check

print(Path("../../data/claims.csv").exists(), Path(helpers.__file__).parent)"""


def aside() -> NotebookNode:
    """A side lesson that reads the course's data and has one exercise, not attempted."""
    cells = [
        nbformat.v4.new_markdown_cell(
            "# An aside\n\nBack to [lesson 00](../00_start_here.ipynb), [the other one]"
            "(00_without_notes.ipynb), [a question](../asked/how_large.ipynb), [a word]"
            "(../../site/glossary.md#logits).",
            id="title",
        ),
        nbformat.v4.new_markdown_cell("## 1. One\n\n**Predict**: how many?", id="one"),
        nbformat.v4.new_code_cell(LOOK, id="look"),
        nbformat.v4.new_code_cell(
            "numbers = ...\ncheck.numbers_in_the_table(numbers)",
            id="stub",
            metadata={"tags": ["exercise"]},
        ),
        nbformat.v4.new_markdown_cell(
            "<details><summary>Solution</summary>\n\n```python\nnumbers = 30\n```\n\n</details>",
            id="solution",
            metadata={"tags": ["solution"]},
        ),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_side_lessons_and_questions_in_the_kit(
    small: Path, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    workshop.write(small, kit)
    mine, copy = kit / "instructor", kit / "participants"
    places = {"00_start_here", "more/00_aside", "more/00_without_notes", "asked/how_large"}
    for folder in (mine / "notebooks", copy / "notebooks", copy / PRISTINE):
        found = {
            path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.ipynb")
        }
        assert found == places, folder
    asked = "notebooks/asked/how_large.ipynb"
    for folder in (mine, copy):
        assert (folder / asked).read_bytes() == (small / asked).read_bytes()
    for name in lessons.SIDE_LESSONS:
        student = read(copy / "notebooks" / "more" / f"{name}.ipynb")
        assert student.cells[-1].source == workshop.WITHHELD
        slide = mine / "slides" / "more" / f"{name}.html"
        assert "<title>An aside</title>" in slide.read_text(encoding="utf-8")
        assert slide.with_suffix(".ipynb").exists() and slide.with_name("rise.css").exists()
        solved = read(mine / "notebooks" / "more" / f"{name}.ipynb")
        noted = [cell.id for cell in solved.cells if cell.id.startswith("notes")]
        assert noted == (["notes", "notes-one"] if name == "00_aside" else [])
        assert solved.cells[-2].source.startswith("numbers = 30\n")
        for kind in workshop.SAYS:
            assert not lead_nowhere(kit / kind / "notebooks" / "more" / f"{name}.ipynb")
    guide = (mine / "guide.html").read_text(encoding="utf-8")
    assert re.findall(r'<article id="([^"]+)"', guide) == ["guide", "00_aside"]
    assert '<a href="#00_aside">the aside</a>' in guide and "itself and\na question" in guide


def test_a_side_lesson_runs_in_its_folder_and_is_pristine_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = tmp_path / "kit"
    workshop.write(small, kit)
    monkeypatch.setattr(lessons, "SIDE_LESSONS", ("00_aside",))
    monkeypatch.setattr(lessons, "LESSONS", ())
    copy = kit / "participants"
    before = sorted(copy.rglob("*"))
    assert workshop.run_all(kit, at_once=1) == 0
    assert "participants/00_aside.ipynb" in capsys.readouterr().out
    # A run leaves nothing behind in what is handed out.
    assert sorted(copy.rglob("*")) == before
    solved = read(kit / "instructor" / "notebooks" / "more" / "00_aside.ipynb")
    printed = [cell.outputs[0].text for cell in solved.cells if cell.cell_type == "code"]
    assert printed[0] == f"True {kit / 'instructor' / 'helpers'}\n"
    assert printed[1].startswith("Right.")

    path = copy / "notebooks" / "more" / "00_aside.ipynb"
    handed_out = path.read_bytes()
    path.write_text("{}")
    pristine("00_aside", copy)
    assert path.read_bytes() == handed_out


# Slides.


class Page(html.parser.HTMLParser):
    """The sources that a page loads, and its images without words."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images = self.wordless = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.loads += [given["src"]] if given.get("src") else []
        self.loads += [given["href"]] if tag == "link" and given.get("href") else []
        self.images += tag == "img"
        self.wordless += tag == "img" and len(given.get("alt") or "") < 40


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_slides_are_the_lessons_own_and_load_nothing(kit: Path, path: Path) -> None:
    slide = path.relative_to(FOLDER).with_suffix(".html")
    source = (kit / "instructor" / "slides" / slide).read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    assert all(src.startswith("data:image/png") for src in page.loads)
    assert not re.search(r"url\((?!data:|#)|@import", source.partition("</style>")[0])
    figures = [
        out
        for cell in read(path).cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]
    assert page.images == len(figures) and page.wordless == 0
    for words, drawn in (("**To remember", "<strong>To r"), ("**Predict**", "<strong>Predict</")):
        said = sum(cell.source.count(words) for cell in spoken_cells(path))
        assert source.count(drawn) == said
        assert said or path.stem.startswith("00")


def spoken_cells(path: Path) -> list[NotebookNode]:
    return [
        cell
        for cell in slides.spoken(read(path)).cells
        if cell.metadata["slideshow"]["slide_type"] != slides.SKIP
    ]


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_live_slides(kit: Path, path: Path) -> None:
    nb = read(kit / "instructor" / "slides" / path.relative_to(FOLDER))
    nbformat.validate(nb)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    theirs = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == theirs
    assert not any(cell.outputs or cell.execution_count for cell in code)
    left_out = [c.metadata["slideshow"]["slide_type"] == slides.SKIP for c in code]
    # Only the last ones are left out: nothing that is shown can miss what it stands on.
    assert left_out == sorted(left_out)
    solutions = {exercise.code for exercise in exercises(read(path))}
    assert not any(code in cell.source for cell in nb.cells for code in solutions if len(code) > 40)


def test_blocks_of_prose() -> None:
    whole = "One\ntwo.\n\n- a\n\n- b\n\n```python\nx = 1\n\ny = 2\n```\n\n| t |\n|--|"
    assert slides.blocks(f"## A\n\n{whole}\n\nEnd.") == ["## A", whole, "End."]
    # A table or a list right below a heading is a piece of its own.
    assert slides.blocks("## A\n\n| t |\n|--|\n\nEnd.") == ["## A", "| t |\n|--|", "End."]


@pytest.mark.browser
def test_no_slide_is_larger_than_the_screen(kit: Path, browser: "Browser") -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True)
    tab = context.new_page()
    large, seen = [], 0
    for path in sorted((kit / "instructor" / "slides").rglob("*.html")):
        tab.goto(path.as_uri())
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        sizes = tab.evaluate(MEASURE)
        seen += len(sizes)
        large += [(path.stem, *size) for size in sizes if max(size[1:]) > 1 or size[0] == ""]
    context.close()
    assert not large
    # More than thirty a lesson, the short first one aside.
    assert seen > 30 * (len(lessons.LESSONS) - 1)


# For each slide, with all of its steps shown: its first words, and by how many pixels it is too
# wide, too low or too high for the screen. What is not text, an image or a box is not measured.
MEASURE = """() => Reveal.getSlides().map((slide) => {
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, 99);
  const parts = [...slide.querySelectorAll("h1, h2, h3, p, li, pre, img, table")]
    .filter((part) => !part.closest("aside"));
  const boxes = parts.map((part) => part.getBoundingClientRect());
  return [
    slide.innerText.slice(0, 50) || (parts.length ? "figure" : ""),
    Math.max(...boxes.map((box) => box.right)) - 1280,
    Math.max(...boxes.map((box) => box.bottom)) - 720,
    -Math.min(...boxes.map((box) => box.top)),
  ];
})"""


# Packages for a room without a network.


def asked(monkeypatch: pytest.MonkeyPatch, into: Path, *rooms: str) -> list[list[str]]:
    """What pip is asked for, a list of arguments for each room."""
    said: list[list[str]] = []
    monkeypatch.setattr(workshop.subprocess, "run", lambda command, check: said.append(command))
    workshop.wheels(ROOT / "requirements.txt", into, list(rooms))
    return said


def test_each_room_gets_what_its_computers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows, mac = asked(monkeypatch, tmp_path, "windows-3.14", "macos-3.11")
    assert "--platform=win_amd64" in windows and "--python-version=3.14" in windows
    names = [{Requirement(a).name for a in args if "==" in a} for args in (windows, mac)]
    assert {"torch", "jupyterlab", "setuptools", "pywinpty"} <= names[0]
    assert "gensim" not in names[0] and "gensim" in names[1] and "appnope" in names[1]
    assert not {"pexpect", "appnope"} & names[0] and "pywinpty" not in names[1]
    assert all(re.search(r"==[\d.]+$", a) for a in windows if "==" in a)


def test_this_computer_gets_the_list_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = asked(monkeypatch, tmp_path)
    assert command[-2:] == ["-r", str(ROOT / "requirements.txt")] and "--no-deps" not in command


def test_a_room_that_is_none_and_a_torch_with_cuda_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("windows", "beos-3.12", "linux-2.7"):
        with pytest.raises(ValueError, match="names no computers"):
            asked(monkeypatch, tmp_path, room)
    (tmp_path / "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    with pytest.raises(ValueError, match="CUDA"):
        asked(monkeypatch, tmp_path, "linux-3.12")
