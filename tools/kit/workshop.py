"""The workshop kit, made from the lessons: `python -m tools.kit.workshop [--wheels [ROOM ...]]`.

build/workshop/participants/ (and participants.zip) is a copy of the course to hand out, without
outputs and solutions. build/workshop/instructor/ is one with the solutions in place, run, with the
notes of site/instructor/ where they are needed, the guide as one page to print, and slides. Every
notebook of both is run in its place, two at a time; a cell that fails is named, and ends it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from packaging.requirements import Requirement

from tools.kit import slides
from helpers.checks import RAISE
from tools.lessons import LessonError, execute, paths, read, store, tags, with_solutions
from tools.update import PRISTINE

ROOT = Path(__file__).resolve().parents[1]
KIT = Path("build") / "workshop"
NOTES = Path("site") / "instructor"
# What a copy of the course is made of, besides its notebooks, its Makefile and its README.
COPIED = (
    *("helpers", "data", "site/cheat_sheet.md", "site/glossary.md", "notebooks/programs/11_torchrec.py"),
    *("requirements.txt", "requirements-torchrec.txt", "environment.yml", "pyproject.toml"),
    *("LICENSE", "LICENSE-lessons", "CITATION.cff"),
)
# The commands that work in a copy; the others need what only a git clone has.
COMMANDS = {"help", "lab", "check", "pristine", "clean", "environment", "environment-dev"}
# The parts of the README that a copy keeps, and what is otherwise in it.
KEPT = ("## The lessons", "## Licence")
FOLDED = "The solutions are folded below each exercise."
WITHHELD = "*The solution is shown when everybody has tried.*"
# What the lessons say of themselves, and is otherwise in a participant's copy.
OTHERWISE = {
    "The lessons come with our outputs, so that they can be read without running them. If you mean "
    "to predict and run, hide the answers first: *Edit > Clear Outputs of All Cells*. They come "
    "back as you run.": "The outputs are left out: predict, then run.",
    "A solution is folded away underneath.": "Your instructor shows one when everybody has tried.",
    "are in the [README](../README.md) and at the end of each": "are at the end of each",
}
SAYS = {"participants": "Not attempted yet.", "instructor": "Right."}
WELCOME = """# nn.Embedding: a workshop

This folder is your own copy of the course. Answers that you write stay in it.

**The day before.** With Python 3.11 to 3.14, in this folder,

    make check                                  # on Windows: py tools\\environment.py --check

makes the environment, which takes minutes and 3 GB of free disk (12 with CUDA), tries what the
lessons need, and ends with *Ready* or with what is to be mended. On Linux without an NVIDIA card,
put `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` before it. A folder `wheels/` in
here, if your instructor handed one out, takes the network's place.

**On the day.**

    make lab                                    # on Windows: .venv\\Scripts\\jupyter-lab
    make pristine LESSON=03                     # on Windows: py helpers\\update.py --pristine 03

The first opens the lessons, in `notebooks/`. The second gives lesson 03 back as it was handed out;
your own version goes into `kept/` first. Other commands that a lesson names, such as `make bench`,
and the tests, are in the course's repository.
"""
LEADS = """# nn.Embedding: for the instructor

`guide.html` is the guide with a page for each lesson: print it. `notebooks/` are the lessons with
solutions, answers and notes, run: for your own screen, not for the projector. `slides/` holds each
lesson's slides twice: `.html` opens in any browser, without a network (F fills the screen, S opens
the notes), and `.ipynb` is to be run live, in the JupyterLab of the clone that made the kit: Alt +
R, then *View > Full screen slideshow*. Click into a slide once; from then on Shift + Enter runs
what is next on it, folded cells too, and Space goes on. Nothing shows before it is run.
"""
# A room's computers, as pip names them: Linux with glibc 2.28 or newer, macOS 14 on Apple silicon.
TAGS = {
    "linux": [f"manylinux_2_{n}_x86_64" for n in range(28, 4, -1)]
    + ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"],
    "macos": ["macosx_14_0_arm64"],
    "windows": ["win_amd64"],
}
MARKERS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}
PRINTED = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>nn.Embedding: instructor guide</title><style>
body {{ font: 11pt/1.45 Georgia, serif; max-width: 46em; margin: 2em auto; padding: 0 1em }}
h1, h2, h3, table {{ font-family: "Segoe UI", Helvetica, Arial, sans-serif }}
table {{ border-collapse: collapse; font-size: 9.5pt; line-height: 1.3; width: 100% }}
th, td {{ border: 1px solid #999; padding: .3em .5em; text-align: left; vertical-align: top }}
code {{ font-size: 92% }} a {{ color: inherit }} tr, h2 {{ break-inside: avoid }}
article + article {{ border-top: 3px solid; margin-top: 3em }}
@page {{ margin: 16mm }} @media print {{
  body {{ max-width: none; margin: 0; font-size: 10pt }}
  article + article {{ break-before: page; border: 0; margin: 0 }}
}}
</style></head><body>{body}</body></html>
"""


def notes(name: str, root: Path = ROOT) -> str:
    """The instructor's page of that name: a lesson's file name without its ending, or "guide"."""
    return (root / NOTES / f"{name}.md").read_text(encoding="utf-8")


def student(nb: NotebookNode) -> NotebookNode:
    """A copy without outputs, counts and solutions: a sentence stands where a solution stood."""
    nb = slides.blank(nb)
    for cell in nb.cells:
        if "solution" in tags(cell):
            cell.source = WITHHELD
        cell.source = otherwise(cell.source)
    return nb


def otherwise(text: str) -> str:
    """What a participant's copy says in the place of a lesson's words."""
    for ours, theirs in OTHERWISE.items():
        text = text.replace(ours, theirs)
    return text


def table_rows(page: str) -> list[list[str]]:
    """The cells of every table row in a page of notes, rules and headings left out."""
    lines = [line.strip() for line in page.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
    return [[cell.strip() for cell in row] for row in rows if not re.fullmatch(r"[\s:|-]+", row[0])]


def moved(page: str) -> str:
    """A page of notes whose links hold in a notebook of the kit, two folders nearer."""
    page = page.replace("](../../notebooks/", "](").replace("](../", "](../site/")
    page = page.replace("](../site/../", "](../").replace("](guide.md", "](../guide.html")
    return re.sub(r"\]\((\d\d_\w+)\.md", r"](\1.ipynb", page)


def instructor(nb: NotebookNode, page: str) -> NotebookNode:
    """The lesson with its solutions in the stubs' places and the page of notes about it.

    The whole page stands below the lesson's title. What it says of a section (a row of the table
    whose first cell links to a cell of the lesson and whose second holds minutes) stands before it.
    """
    nb, page = with_solutions(nb), moved(page)
    before = {}
    for row in table_rows(page):
        link = re.search(r"\]\([^)#]*#([^)]+)\)", row[0])
        if link and len(row) == 4 and row[1].isdecimal():
            before[link[1]] = (
                f"> **For the instructor: {row[1]} minutes.** Ask: {row[2]}\n>\n"
                f"> Watch for: {row[3]}"
            )
    cells = []
    for cell in nb.cells:
        if cell.id in before:
            cells.append(new_markdown_cell(before[cell.id], id=f"notes-{cell.id}"[:64]))
        cells.append(cell)
    whole = f"---\n\n## For the instructor\n\n{page.partition(chr(10))[2].strip()}\n\n---"
    cells.insert(1, new_markdown_cell(whole, id="notes"))
    nb.cells = cells
    return nb


def run(nb: NotebookNode, kind: str, folder: Path, name: str) -> NotebookNode:
    """`nb` run in `folder`, of a course's copy, with the helpers of that copy.

    LessonError where a cell fails, or an exercise says anything but what it says to a stub
    (`kind` is "participants") or to a solution ("instructor").
    """
    setting = {"PYTHONPATH": str(folder.resolve().parent), "PYTHONDONTWRITEBYTECODE": "1"}
    if kind == "instructor":
        setting[RAISE] = "1"
    done = execute(nb, folder, name, **setting)
    for cell in done.cells:
        if "exercise" in tags(cell):
            said = "".join(out.get("text", "") for out in cell.outputs)
            if not said.startswith(SAYS[kind]):
                raise LessonError(f"{name}: exercise {cell.id} says {said!r}, not {SAYS[kind]!r}")
    return done


def makefile(text: str) -> str:
    """The Makefile of a copy: the course's own, without the commands that need a git clone."""
    names = " ".join(re.findall(r"^\.PHONY:(.*)$", text, re.M)).split()
    text = re.sub(r"^\.PHONY:.*\n", "", text, flags=re.M)
    for name in set(names) - COMMANDS:
        rule = rf"(^#.*\n)*^{name}:.*\n(\t.*\n)*\n?|^\t@echo 'make {name} .*\n"
        text = re.sub(rule, "", text, flags=re.M)
    kept = " ".join(name for name in names if name in COMMANDS)
    return re.sub(r"^help:\n", f".PHONY: {kept}\n\nhelp:\n", text, count=1, flags=re.M)


def copy_course(root: Path, into: Path, welcome: str) -> None:
    """All of a runnable copy of the course but its notebooks."""
    for name in COPIED:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, target)
    commands = makefile((root / "Makefile").read_text(encoding="utf-8"))
    (into / "Makefile").write_text(commands, encoding="utf-8", newline="\n")
    readme = (root / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^(?=## )", readme, flags=re.M)
    parts = [part for part in parts if part.startswith(KEPT)]
    theirs, ours = "Your instructor has the solutions.", "The solutions stand in the stubs' places."
    text = "\n".join([welcome, *parts]).replace(FOLDED, theirs if welcome == WELCOME else ours)
    (into / "README.md").write_text(text, encoding="utf-8", newline="\n")


def guide(root: Path) -> str:
    """The instructor's guide and the page of each lesson, as one page of HTML to print."""
    articles = []
    for name in ("guide", *(path.stem for path in paths(root / "notebooks"))):
        text = notes(name, root).replace("](../../", "](")
        # A browser would show the text of a notebook's file.
        text = re.sub(r"\[([^\]]+)\]\(notebooks/[^)]*\)", r"\1", text)
        text = re.sub(r"\]\((guide|\d\d_\w+)\.md(?:#[\w-]*)?\)", r"](#\1)", text)
        body = markdown2html(text.replace("](../", "](site/"))
        # Pages share headings, and an id may stand once.
        body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body)
        body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
        articles.append(f'<article id="{name}">{body}</article>')
    return PRINTED.format(body="\n".join(articles))


def write(root: Path, kit: Path) -> None:
    """Write the kit from the lessons, all but what running them adds."""
    if any(kit.glob("*")) and not (kit / "participants").is_dir():
        raise ValueError(f"{kit} holds what is no kit, and would be deleted. Name a new folder.")
    shutil.rmtree(kit, ignore_errors=True)
    copy_course(root, kit / "participants", WELCOME)
    copy_course(root, kit / "instructor", LEADS)
    (kit / "instructor" / "slides").mkdir()
    rise = kit / "instructor" / "slides" / "rise.css"
    rise.write_text(slides.RISE_CSS, encoding="utf-8", newline="\n")
    for path in paths(root / "notebooks"):
        nb, page = read(path), notes(path.stem, root)
        handed = kit / "participants"
        for folder in (handed / "notebooks", handed / PRISTINE):
            folder.mkdir(exist_ok=True)
            store(student(nb), folder / path.name)
        mine = kit / "instructor"
        store(instructor(nb, page), mine / "notebooks" / path.name)
        store(slides.live(nb), mine / "slides" / path.name)
        (mine / "slides" / f"{path.stem}.html").write_text(slides.page(nb), "utf-8")
    (kit / "instructor" / "guide.html").write_text(guide(root), encoding="utf-8")
    shutil.make_archive(str(kit / "participants"), "zip", kit, "participants")


def run_in_place(kind: str, path: Path) -> float:
    """Run one notebook of the kit where it is; the seconds. The instructor's is stored as run."""
    start = time.perf_counter()
    done = run(read(path), kind, path.parent, f"{kind}/{path.name}")
    if kind == "instructor":
        store(done, path)
    return time.perf_counter() - start


def run_all(kit: Path, at_once: int = 2) -> int:
    """Run every notebook of the kit, with a line for each; the number that failed."""
    names = [path.name for path in paths(kit / "instructor" / "notebooks")]
    each = [(kind, kit / kind / "notebooks" / name) for name in names for kind in SAYS]
    failed = 0
    # Processes, since nbclient leaves an event loop open in a thread.
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(run_in_place, kind, path): (kind, path) for kind, path in each}
        for number, job in enumerate(as_completed(jobs), 1):
            kind, path = jobs[job]
            lead = f"[{number}/{len(jobs)}] {kind}/{path.name}"
            try:
                print(f"{lead}: {job.result():.0f} s", flush=True)
            except LessonError as error:
                failed += 1
                print(f"{lead} FAILED: {error}", file=sys.stderr, flush=True)
    return failed


def wheels(requirements: Path, into: Path, rooms: list[str]) -> None:
    """Download the packages of a list, for this computer or for those named, such as windows-3.12.

    ValueError for a name that is none; CalledProcessError, after pip's own words, where pip fails.
    """
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "-q"]
    pip += ["--only-binary=:all:", "-d", str(into)]
    if not rooms:
        subprocess.run([*pip, "-r", str(requirements)], check=True)
    for room in rooms:
        system, _, python = room.partition("-")
        if system not in TAGS or not re.fullmatch(r"3\.\d+", python):
            raise ValueError(f"{room!r} is no room: name one as {', '.join(TAGS)}, then -3.12.")
        # pip reads a list's markers for the Python that runs it, whatever --platform says.
        where = {**MARKERS[system], "python_version": python, "python_full_version": f"{python}.0"}
        lines = requirements.read_text(encoding="utf-8").splitlines()
        wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
        wanted = [need for need in wanted if not need.marker or need.marker.evaluate(where)]
        print(f"{room}: {len(wanted)} packages", flush=True)
        options = [f"--platform={tag}" for tag in TAGS[system]]
        options += ["--no-deps", f"--python-version={python}"]
        names = [f"{need.name}{need.specifier}" for need in wanted]
        subprocess.run([*pip, *options, *names], check=True)
        # torch would ask for CUDA's packages too, on Linux alone.
        cuda = [file.name for file in into.glob("torch-*linux*") if "cpu" not in file.name]
        if cuda and system == "linux":
            raise ValueError(
                f"{cuda[0]} wants CUDA's packages too. Offer pip the builds for the CPU, as the "
                "README says under Linux, and run this again."
            )


def main(arguments: list[str] | None = None) -> int:
    """Make the kit and run it; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.kit.workshop", description=__doc__)
    parser.add_argument("--kit", type=Path, default=ROOT / KIT, help="the folder, made anew")
    parser.add_argument("--no-run", action="store_true", help="write the notebooks, run none")
    rooms = "also packages: for this computer, or for each ROOM, such as linux-3.11 windows-3.12"
    parser.add_argument("--wheels", nargs="*", metavar="ROOM", help=rooms)
    options = parser.parse_args(arguments)
    try:
        write(ROOT, options.kit)
        handed = options.kit / "participants"
        if options.wheels is not None:
            wheels(handed / "requirements.txt", handed / "wheels", options.wheels)
        failed = 0 if options.no_run else run_all(options.kit)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"The kit could not be made: {error}", file=sys.stderr)
        return 1
    print(f"{failed} notebooks failed." if failed else f"The kit is in {options.kit}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
