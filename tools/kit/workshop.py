"""The workshop kit, made from the lessons: `python -m tools.kit.workshop [--wheels [ROOM ...]]`.

build/workshop/participants/ (and participants.zip) is a copy of the course to hand out, without
outputs and solutions. build/workshop/instructor/ is a copy with the solutions in place, run, with
the notes of site/instructor/ where they are needed, the guide as one page to print, and slides.
Every lesson and side lesson of both copies is run in its place, two at a time. Each notebook that
fails is named, with its cell, and the command ends with status 1.
"""

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from jinja2 import Template
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from packaging.requirements import Requirement

from helpers.checks import RAISE
from tools.kit import slides
from tools.lessons import (
    LessonError,
    every,
    execute,
    read,
    store,
    tags,
    taught,
    text,
    with_solutions,
)
from tools.update import PRISTINE

ROOT = Path(__file__).resolve().parents[2]
NOTES = "site/instructor"
# What a copy holds besides its notebooks, its Makefile and its README.
COPIED = (
    *("helpers", "data", "notebooks/programs"),
    *("notebooks/more/README.md", "notebooks/asked/README.md"),
    *("site/cheat_sheet.md", "site/claims.md", "site/glossary.md", "site/host_tables.md"),
    *("tools/__init__.py", "tools/environment.py", "tools/ready.py", "tools/update.py"),
    *("requirements.txt", "requirements-torchrec.txt", "environment.yml", "pyproject.toml"),
    *("LICENSE", "LICENSE-lessons", "CITATION.cff"),
)
# The commands that work in a copy; the others need what only a git clone has.
COMMANDS = {"help", "lab", "check", "pristine", "clean", "environment", "environment-dev"}
WITHHELD = "*The solution is shown when everybody has tried.*"
# Sentences of the lessons that are not true of the participants' copy, and what it says instead.
OTHERWISE = {
    "The lessons come with our outputs, so that they can be read without running them. If you mean "
    "to predict and run, hide the answers first: *Edit > Clear Outputs of All Cells*. They come "
    "back as you run.": "The outputs are left out: predict, then run.",
    "A solution is folded away underneath.": "Your instructor shows one when everybody has tried.",
}
# How a check answers a stub, in the participants' copy, and a solution, in the instructor's.
SAYS = {"participants": "Not attempted yet.", "instructor": "Right."}
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


def fill(template: str, **parts: object) -> str:
    """The file of that name in templates/, with `parts` in their places."""
    source = (slides.TEMPLATES / template).read_text(encoding="utf-8")
    return Template(source, keep_trailing_newline=True).render(parts)


def write_text(content: str, path: Path) -> None:
    """Write a file, the same on every system, and make its folder first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def notes(name: str, root: Path = ROOT) -> str:
    """The instructor's page about the lesson of that name, or the "guide"; "" if there is none."""
    page = root / NOTES / f"{name}.md"
    return page.read_text(encoding="utf-8") if page.exists() else ""


def student(nb: NotebookNode) -> NotebookNode:
    """A copy without outputs, counts and solutions: a sentence stands where a solution stood."""
    nb = slides.blank(nb)
    for cell in nb.cells:
        if "solution" in tags(cell):
            cell.source = WITHHELD
        cell.source = otherwise(cell.source)
    return nb


def otherwise(source: str) -> str:
    """A cell's words as they are true in the participants' copy."""
    for ours, theirs in OTHERWISE.items():
        source = source.replace(ours, theirs)
    return source


def table_rows(page: str) -> list[list[str]]:
    """The cells of each table row in a page, without the lines |:--| below the tables' heads."""
    lines = [line.strip() for line in page.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
    return [[cell.strip() for cell in row] for row in rows if not re.fullmatch(r"[\s:|-]+", row[0])]


def target(link: str) -> str:
    """The file, from the top of the course, that a relative link on an instructor's page names."""
    return posixpath.normpath(posixpath.join(NOTES, link))


def moved(page: str, folder: str) -> str:
    """An instructor's page with links that hold in `folder` of the copy, such as notebooks/more.

    In the copy a lesson's page stands in the lesson, so a link to the page becomes one to that.
    """
    places = {path.stem: path.as_posix() for path in taught(Path("notebooks"))}
    places["guide"] = "guide.html"

    def link(match: re.Match[str]) -> str:
        file = target(match[0])
        return posixpath.relpath(places.get(PurePosixPath(file).stem, file), folder)

    return re.sub(r"(?<=\]\()(?!\w+:)[^)#\s]+", link, page)


def instructor(nb: NotebookNode, page: str) -> NotebookNode:
    """A copy with the solutions in the stubs' places and, if `page` holds any, with the notes.

    The whole page stands below the lesson's title. What it says of a section (a row of the table
    whose first cell links to a cell of the lesson and whose second holds minutes) stands before it.
    """
    nb = with_solutions(nb)
    if not page:
        return nb
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
    _, _, below_title = page.partition("\n")
    whole = f"---\n\n## For the instructor\n\n{below_title.strip()}\n\n---"
    cells.insert(1, new_markdown_cell(whole, id="notes"))
    nb.cells = cells
    return nb


def run(nb: NotebookNode, kind: str, path: Path) -> NotebookNode:
    """`nb` run as the notebook at `path`, with the helpers beside that notebooks folder.

    LessonError where a cell fails, or a check does not say what SAYS has for this `kind`.
    """
    course = next(up.parent for up in path.resolve().parents if up.name == "notebooks")
    setting = {"PYTHONPATH": str(course), "PYTHONDONTWRITEBYTECODE": "1"}
    if kind == "instructor":
        setting[RAISE] = "1"
    name = f"{kind}/{path.name}"
    done = execute(nb, path.parent, name, **setting)
    for cell in done.cells:
        if "exercise" in tags(cell):
            said = "".join(out.get("text", "") for out in cell.outputs)
            if not said.startswith(SAYS[kind]):
                raise LessonError(f"{name}: exercise {cell.id} says {said!r}, not {SAYS[kind]!r}")
    return done


def makefile(ours: str) -> str:
    """The Makefile of a copy: the course's own, without the commands that need a git clone."""
    names = " ".join(re.findall(r"^\.PHONY:(.*)$", ours, re.M)).split()
    ours = re.sub(r"^\.PHONY:.*\n", "", ours, flags=re.M)
    for name in set(names) - COMMANDS:
        rule = rf"(^#.*\n)*^{name}:.*\n(\t.*\n)*\n?|^\t@echo 'make {name} .*\n"
        ours = re.sub(rule, "", ours, flags=re.M)
    kept = " ".join(name for name in names if name in COMMANDS)
    return re.sub(r"^help:\n", f".PHONY: {kept}\n\nhelp:\n", ours, count=1, flags=re.M)


def copy_course(root: Path, into: Path, kind: str) -> None:
    """All of a runnable copy of the course but its notebooks."""
    for name in COPIED:
        place = into / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, place)
    write_text(makefile((root / "Makefile").read_text(encoding="utf-8")), into / "Makefile")
    readme = (root / "README.md").read_text(encoding="utf-8")
    lessons = re.search(r"^## The lessons\n.*?(?=^## |\Z)", readme, re.M | re.S)[0].strip()
    write_text(fill(f"{kind}.md", lessons=lessons), into / "README.md")


def guide(root: Path) -> str:
    """The instructor's guide and the page of each lesson, as one page of HTML to print."""

    def link(match: re.Match[str]) -> str:
        file = target(match[1])
        if file.startswith("notebooks/"):  # a browser would show the text of the file
            return match[2]
        place = f"#{PurePosixPath(file).stem}" if file.startswith(f"{NOTES}/") else file
        return f'<a href="{place}">{match[2]}</a>'

    pages = []
    for name in ("guide", *(path.stem for path in taught())):
        body = markdown2html(notes(name, root))
        # The pages have headings in common, and an id may stand once in a page.
        body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body)
        body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
        body = re.sub(r'<a href="(?!\w+:)([^"#]+)[^"]*">(.*?)</a>', link, body, flags=re.S)
        pages.append((name, body))
    return fill("guide.html", pages=[(name, body) for name, body in pages if body])


def write(root: Path, kit: Path) -> None:
    """Write the kit, all but what running its notebooks adds."""
    if any(kit.glob("*")) and not (kit / "participants").is_dir():
        raise ValueError(f"{kit} has other files in it, which would be deleted. Name a new folder.")
    shutil.rmtree(kit, ignore_errors=True)
    handed, mine = kit / "participants", kit / "instructor"
    copy_course(root, handed, "participants")
    copy_course(root, mine, "instructor")
    notebooks = root / "notebooks"
    for path in taught(notebooks):
        place, folder = path.relative_to(notebooks), path.parent.relative_to(root)
        nb, page = read(path), moved(notes(path.stem, root), folder.as_posix())
        write_text(text(student(nb)), handed / "notebooks" / place)
        write_text(text(instructor(nb, page)), mine / "notebooks" / place)
        shown = mine / "slides" / place
        write_text(text(slides.live(nb)), shown)
        write_text(slides.page(nb), shown.with_suffix(".html"))
        write_text(fill("rise.css"), shown.with_name("rise.css"))
    for path in set(every(notebooks)) - set(taught(notebooks)):
        for copy in (handed, mine):
            write_text(path.read_text(encoding="utf-8"), copy / path.relative_to(root))
    programs = shutil.ignore_patterns("programs")
    shutil.copytree(handed / "notebooks", handed / PRISTINE, ignore=programs)
    write_text(guide(root), mine / "guide.html")
    shutil.make_archive(str(handed), "zip", kit, "participants")


def run_in_place(kind: str, path: Path) -> float:
    """Run one notebook of the kit where it is; the seconds. The instructor's is stored as run."""
    start = time.perf_counter()
    done = run(read(path), kind, path)
    if kind == "instructor":
        store(done, path)
    return time.perf_counter() - start


def run_all(kit: Path, at_once: int = 2) -> int:
    """Run every lesson of the kit, with a line for each; the number that failed."""
    each = [(kind, path) for kind in SAYS for path in taught(kit / kind / "notebooks")]
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

    ValueError for a name of another form; CalledProcessError, after pip's own words, if pip fails.
    """
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "-q"]
    pip += ["--only-binary=:all:", "-d", str(into)]
    if not rooms:
        subprocess.run([*pip, "-r", str(requirements)], check=True)
    for room in rooms:
        system, _, python = room.partition("-")
        if system not in TAGS or not re.fullmatch(r"3\.\d+", python):
            raise ValueError(
                f"{room!r} names no computers: write {', '.join(TAGS)}, then -3.12, their Python."
            )
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
    kit = ROOT / "build" / "workshop"
    parser.add_argument("--kit", type=Path, default=kit, help="the folder, made anew")
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
