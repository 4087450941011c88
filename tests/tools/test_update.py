"""Updating costs no answer: git and nbgitpuller on a course that goes on while it is read."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tools import update
from tools.lessons import read, store, tags

ROOT = Path(__file__).parents[2]
NAMES = ("01_lookup_tables", "02_one_hot_equivalence", "03_backprop_through_embeddings")
# Notebooks in the folders below, made up.
BELOW = ("more/03_a_side_lesson", "more/03_another", "asked/how_large")
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="There is no git")

LESSON = "notebooks/03_backprop_through_embeddings.ipynb"


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    command = ["git", *settings, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as it is by default; and in a hook GIT_DIR would lead every command into the course."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LC_ALL", "C")


def publish(course: Path) -> None:
    git(course, "add", "--all")
    git(course, "commit", "--quiet", "-m", "published")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """The course as it is published: some notebooks, and how git is to merge them."""
    course = tmp_path / "course"
    for name in NAMES + BELOW:
        path = course / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        from_course = name if name in NAMES else "00_start_here"
        shutil.copy(ROOT / "notebooks" / f"{from_course}.ipynb", path)
    shutil.copy(ROOT / ".gitattributes", course)
    (course / "helpers.py").write_text("one = 1\n")
    git(course, "init", "--quiet")
    publish(course)
    return course


@pytest.fixture
def mine(course: Path, tmp_path: Path) -> Path:
    """A reader's clone of it."""
    git(tmp_path, "clone", "--quiet", str(course), "mine")
    return tmp_path / "mine"


def edit(path: Path, change: Callable[[nbformat.NotebookNode], object]) -> bytes:
    """Change a notebook as a person does in JupyterLab; its bytes from then on."""
    nb = read(path)
    change(nb)
    nbformat.validate(nb)
    store(nb, path)
    return path.read_bytes()


def answer(nb: nbformat.NotebookNode) -> None:
    """Every exercise answered and run, with all outputs cleared before, and a cell of one's own."""
    for number, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "exercise" in tags(cell):
            cell.source = f"my_answer = {number}\n{cell.source}"
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text="Right. Well done.\n")]
    nb.cells.insert(20, nbformat.v4.new_code_cell("my = 'own'", id="my-own"))


def rewrite(nb: nbformat.NotebookNode) -> None:
    """What a next edition does: the same cells changed, others too, one gone, one new."""
    for cell in nb.cells:
        if "exercise" in tags(cell):
            cell.source = f"# {cell.source.splitlines()[0]}\n{cell.source}"
        if cell.cell_type == "markdown":
            cell.source += "\n\nA better sentence."
    del nb.cells[40]
    nb.cells.insert(10, nbformat.v4.new_code_cell("1 + 1", id="new-cell"))


def rewrite_all(nb: nbformat.NotebookNode) -> None:
    """A change of a short notebook, as a reader or a next edition may make it."""
    for cell in nb.cells:
        cell.source += "\n\n# changed"


def test_an_update_renews_the_course_and_keeps_every_answer(course: Path, mine: Path) -> None:
    wrote = edit(mine / LESSON, answer)
    (mine / "notebooks" / "my_own.ipynb").write_text("{}")
    (mine / "notebooks" / "01_lookup_tables.ipynb").unlink()
    rewritten = edit(course / LESSON, rewrite)
    edit(course / "notebooks" / "02_one_hot_equivalence.ipynb", rewrite)
    shutil.copy(course / LESSON, course / "notebooks" / "12_a_new_lesson.ipynb")
    (course / "helpers.py").write_text("one = 2\n")
    publish(course)

    said = update.update(mine)
    # To the last byte: the lesson that the reader answered, and the reader's own.
    assert (mine / LESSON).read_bytes() == wrote
    assert (mine / "notebooks" / "my_own.ipynb").read_text() == "{}"
    # All else is the new edition, and the deleted lesson is back.
    for name in ("02_one_hot_equivalence", "12_a_new_lesson", "01_lookup_tables"):
        file = Path("notebooks") / f"{name}.ipynb"
        assert (mine / file).read_bytes() == (course / file).read_bytes(), name
    assert (mine / "helpers.py").read_text() == "one = 2\n"
    assert "Kept as you have it: 03_backprop" in said and "renewed: 12_a_new_lesson" in said
    assert update.update(mine).startswith("Nothing is new.")

    # The new edition of the kept lesson is one command away, and so is the answer.
    assert "kept/" in update.pristine("03", mine)
    assert (mine / LESSON).read_bytes() == rewritten
    (kept,) = (mine / "kept").iterdir()
    assert kept.read_bytes() == wrote


def test_answers_survive_a_withdrawn_lesson(
    course: Path, mine: Path
) -> None:
    wrote = edit(mine / LESSON, answer)
    other = mine / "notebooks" / "02_one_hot_equivalence.ipynb"
    also = edit(other, answer)
    git(course, "rm", "--quiet", LESSON)
    git(course, "mv", "notebooks/02_one_hot_equivalence.ipynb", "notebooks/02_renamed.ipynb")
    edit(course / "notebooks" / "02_renamed.ipynb", rewrite)
    publish(course)
    update.update(mine)
    assert (mine / LESSON).read_bytes() == wrote
    found = [path.read_bytes() for path in (mine / "notebooks").glob("02_*.ipynb")]
    assert also in found


def test_a_lesson_that_the_reader_renamed_stays_renamed(course: Path, mine: Path) -> None:
    git(mine, "mv", LESSON, "notebooks/my_03.ipynb")
    git(mine, "commit", "--quiet", "-m", "mine")
    edit(course / LESSON, rewrite_all)
    publish(course)
    assert "03_backprop" not in update.update(mine)
    assert not (mine / LESSON).exists() and (mine / "notebooks" / "my_03.ipynb").exists()


def test_an_update_without_a_network_changes_nothing(course: Path, mine: Path) -> None:
    wrote = edit(mine / LESSON, answer)
    course.rename(course.with_name("gone"))
    with pytest.raises(update.UpdateError, match="Your files are as they were"):
        update.update(mine)
    assert (mine / LESSON).read_bytes() == wrote
    # A pristine lesson needs none.
    assert "as it was published" in update.pristine("3", mine)
    assert (mine / LESSON).read_bytes() == (ROOT / LESSON).read_bytes()


def test_line_by_line_merges_would_mix_two_notebooks(course: Path, mine: Path) -> None:
    """Why .gitattributes says what it says: without it, the reader's file is not the reader's."""
    for clone in (course, mine):
        (clone / ".gitattributes").write_text("*.ipynb text eol=lf\n")
    wrote = edit(mine / LESSON, answer)
    edit(course / LESSON, rewrite)
    publish(course)
    update.update(mine)
    assert (mine / LESSON).read_bytes() != wrote


def test_pristine_keeps_each_version_and_does_nothing_twice(mine: Path) -> None:
    wrote = [edit(mine / LESSON, answer)]
    update.pristine("03", mine)
    assert "already" in update.pristine("03", mine)
    # Twice in a second, and a lesson that is not there at all.
    wrote.append(edit(mine / LESSON, rewrite))
    update.pristine(LESSON, mine)
    (mine / LESSON).unlink()
    assert "kept" not in update.pristine("03_backprop_through_embeddings", mine)
    kept = [path.read_bytes() for path in (mine / "kept").iterdir()]
    assert sorted(kept) == sorted(wrote)
    assert (mine / LESSON).read_bytes() == (ROOT / LESSON).read_bytes()


def test_pristine_after_a_pull_committed_answers(
    course: Path, mine: Path
) -> None:
    edit(mine / LESSON, answer)
    (course / "helpers.py").write_text("one = 3\n")
    publish(course)
    update.update(mine)
    assert git(mine, "log", "--format=%s", "--", LESSON).startswith("Automatic commit")
    update.pristine("03", mine)
    assert (mine / LESSON).read_bytes() == (course / LESSON).read_bytes()
    update.update(mine)
    assert (mine / LESSON).read_bytes() == (course / LESSON).read_bytes()


def test_pristine_in_a_handed_out_copy(tmp_path: Path) -> None:
    for folder in ("notebooks", update.PRISTINE):
        (tmp_path / folder / "more").mkdir(parents=True)
        shutil.copy(ROOT / LESSON, tmp_path / folder)
        shutil.copy(ROOT / LESSON, tmp_path / folder / "more" / "03_a_side_lesson.ipynb")
    for lesson, file in (
        ("03", LESSON),
        ("03_a_side_lesson", "notebooks/more/03_a_side_lesson.ipynb"),
    ):
        wrote = edit(tmp_path / file, answer)
        assert f"kept/{Path(file).stem}" in update.pristine(lesson, tmp_path)
        assert (tmp_path / file).read_bytes() == (ROOT / LESSON).read_bytes()
        (kept,) = (tmp_path / "kept").glob(f"{Path(file).stem}_*")
        assert kept.read_bytes() == wrote
    with pytest.raises(update.UpdateError, match="no git clone"):
        update.update(tmp_path)
    shutil.rmtree(tmp_path / update.PRISTINE)
    with pytest.raises(update.UpdateError, match="Download it again"):
        update.pristine("03", tmp_path)


@pytest.mark.parametrize("name", BELOW)
def test_pristine_in_a_folder_below(mine: Path, name: str) -> None:
    path = mine / "notebooks" / f"{name}.ipynb"
    published, wrote = path.read_bytes(), edit(path, rewrite_all)
    assert f"kept/{path.stem}" in update.pristine(path.stem, mine)
    assert path.read_bytes() == published
    (kept,) = (mine / "kept").iterdir()
    assert kept.read_bytes() == wrote
    shutil.rmtree(path.parent)
    update.pristine(f"notebooks/{name}.ipynb", mine)
    assert path.read_bytes() == published


def test_a_number_is_the_lesson_and_none_of_its_side_lessons(mine: Path) -> None:
    paths = [mine / "notebooks" / f"{name}.ipynb" for name in BELOW[:2]]
    wrote = [edit(path, rewrite_all) for path in paths]
    edit(mine / LESSON, answer)
    assert "03_backprop_through_embeddings.ipynb is as it was" in update.pristine("03", mine)
    assert (mine / LESSON).read_bytes() == (ROOT / LESSON).read_bytes()
    assert [path.read_bytes() for path in paths] == wrote


def test_news_name_what_pristine_understands(
    course: Path, mine: Path
) -> None:
    for name in BELOW:
        edit(course / "notebooks" / f"{name}.ipynb", rewrite_all)
    publish(course)
    wrote = edit(mine / "notebooks" / f"{BELOW[0]}.ipynb", answer)
    said = update.update(mine)
    assert "New or renewed: 03_another.ipynb" in said and "renewed: how_large.ipynb" in said
    (asked_for,) = re.findall(r"make pristine LESSON=(\S+)", said)
    assert (mine / "notebooks" / f"{BELOW[0]}.ipynb").read_bytes() == wrote
    update.pristine(asked_for, mine)
    for name in BELOW:
        file = f"notebooks/{name}.ipynb"
        assert (mine / file).read_bytes() == (course / file).read_bytes(), name


@pytest.mark.parametrize("lesson", ["42", "", "lookup", "0", "03_a_side"])
def test_a_lesson_that_is_none_is_named_with_those_that_are(mine: Path, lesson: str) -> None:
    known = r"stands here: 01, 02, 03, how_large, 03_a_side_lesson, 03_another\.$"
    with pytest.raises(update.UpdateError, match=known):
        update.pristine(lesson, mine)


def test_pristine_needs_the_standard_library_alone(mine: Path) -> None:
    """As a script, with no package in reach."""
    (mine / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "update.py", mine / "tools")
    wrote = edit(mine / LESSON, answer)
    command = [sys.executable, "-I", "-S", "tools/update.py", "--pristine", "03"]
    done = subprocess.run(command, cwd=mine, capture_output=True, text=True)
    assert done.returncode == 0 and "kept/" in done.stdout, done.stderr
    assert (mine / LESSON).read_bytes() == (ROOT / LESSON).read_bytes() != wrote


def test_a_clone_that_follows_nothing_says_how_to_follow(course: Path) -> None:
    with pytest.raises(update.UpdateError, match="set-upstream-to"):
        update.update(course)
    # Its own last commit is then the published one.
    edit(course / LESSON, answer)
    assert "as it was published" in update.pristine("03", course)
    assert json.loads((course / LESSON).read_text(encoding="utf-8"))["cells"]


def test_the_command_says_in_a_line_what_is_wrong(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(update, "ROOT", mine)
    assert update.main(["--pristine", "99"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no lesson '99'" in line
    assert update.main(["--pristine"]) == 1
    assert "Name one as it stands here" in capsys.readouterr().err
    assert update.main([]) == 0
    assert capsys.readouterr().out == "Nothing is new. Your answers are as they were.\n"


def test_a_merge_of_the_readers_own_is_left_alone(course: Path, mine: Path) -> None:
    """`git merge --abort` would take along what was written since."""
    edit(mine / LESSON, answer)
    git(mine, "commit", "--quiet", "-am", "mine")
    edit(course / LESSON, rewrite)
    publish(course)
    with pytest.raises(subprocess.CalledProcessError):
        git(mine, "pull", "--quiet", "--no-rebase")
    wrote = edit(mine / LESSON, lambda nb: nb.cells.pop())
    course.rename(course.with_name("gone"))
    with pytest.raises(update.UpdateError, match="merge is not finished"):
        update.update(mine)
    assert (mine / LESSON).read_bytes() == wrote
