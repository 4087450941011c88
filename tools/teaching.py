"""The instructor's pages: their minutes are the lessons', and the guide's plans add up.

A page of site/instructor/ has a row for each section of its lesson: a link to it, minutes, what to
ask, what to watch for. The guide's plans have a row for each thing that is done: the clock,
minutes, what, and the exercises left for home. `write_minutes` and `write_plan` put the numbers in.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

from tools import budget
from tools.lessons import FOLDER, read, tags

PAGES = FOLDER.parent / "site" / "instructor"
SECTIONS = "Sections and minutes"
CLOSING = frozenset({"Claims settled", "In short", "More", "Next", "Further reading"})
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
SUM = re.compile(
    r"^Sections (\d+) minutes, checkpoints and talk (\d+), breaks (\d+): (\d+) in all\.$", re.M
)


class Exercise(NamedTuple):
    """An exercise's heading, the cell it stands in, its minutes and its section's cell."""

    title: str
    cell: str
    minutes: int
    section: str


class Lesson(NamedTuple):
    """What a page must agree with."""

    title: str
    minutes: int
    sections: dict[str, str]  # the id of the heading's cell, to its words; closing ones left out
    exercises: list[Exercise]
    cells: set[str]


@functools.cache
def lesson(path: Path) -> Lesson:
    """What the notebook at `path` says of itself."""
    nb = read(path)
    prose = [c for c in nb.cells if c.cell_type == "markdown" and "solution" not in tags(c)]
    sections: dict[str, str] = {}
    exercises: list[Exercise] = []
    for cell in prose:
        for heading in re.finditer(r"^(##|###) (.+)$", cell.source, re.M):
            if heading[1] == "##" and heading[2] not in CLOSING:
                sections[cell.id] = heading[2]
            if heading[1] == "###" and heading[2].startswith("Exercise"):
                minutes = int(budget.MINUTES.search(cell.source[heading.end() :])[1])
                exercises.append(Exercise(heading[2], cell.id, minutes, [*sections][-1]))
    title = prose[0].source.partition("\n")[0].removeprefix("# ")
    return Lesson(title, budget.card(nb), sections, exercises, {c.id for c in nb.cells})


def page_of(path: Path) -> str:
    """The instructor's page about the lesson at `path`."""
    return (PAGES / f"{path.stem}.md").read_text(encoding="utf-8")


def is_row(line: str) -> bool:
    return line.startswith("|") and not re.fullmatch(r"[|:\s-]+", line)


def cells_of(line: str) -> list[str]:
    """The cells of a table's row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(text: str) -> list[list[str]]:
    """The cells of each table row in a text, without the tables' heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {i for i, _ in enumerate(lines) if i + 1 < len(lines) and not is_row(lines[i + 1])}
    return [cells_of(line) for i, line in enumerate(lines) if i not in heads and is_row(line)]


def parts(page: str) -> dict[str, str]:
    """Each second-level heading with the text below it."""
    split = re.split(r"^## (.+)$", page, flags=re.M)
    return dict(zip(split[1::2], split[2::2], strict=True))


def links(text: str) -> list[tuple[str, Path, str]]:
    """(words, file, anchor) of each link to a file of the course."""
    found = [m.groups(default="") for m in LINK.finditer(text) if "://" not in m[2]]
    return [(words, (PAGES / file).resolve(), anchor) for words, file, anchor in found]


def minutes_of(page: str) -> dict[str, int]:
    """A section's cell id, to the minutes that the lesson's page gives it."""
    table = rows(parts(page).get(SECTIONS, ""))
    return {links(row[0])[0][2]: int(row[1]) for row in table if links(row[0])}


def write_minutes(page: str, path: Path) -> str:
    """The page with the minutes that the formula gives to each section of the lesson at `path`."""
    minutes = budget.sections(read(path), CLOSING)
    before, heading, after = page.partition(f"## {SECTIONS}\n")
    table, following, rest = after.partition("\n## ")
    lines = table.split("\n")
    for i, line in enumerate(lines):
        row = cells_of(line)
        if not is_row(line) or len(row) < 2 or not row[1].isdecimal():
            continue
        found = links(row[0])
        name = found[0][2] if found else row[0]
        if name in minutes:
            lines[i] = line.replace(f" | {row[1]} | ", f" | {minutes[name]} | ", 1)
    return before + heading + "\n".join(lines) + following + rest


def taught_in(path: Path) -> dict[str, int]:
    """Minutes of a notebook's sections: by its page, or by the formula where it has none."""
    if (PAGES / f"{path.stem}.md").is_file():
        return minutes_of(page_of(path))
    return budget.sections(read(path), CLOSING)


def clock(minutes: int) -> str:
    """Minutes as on a clock: 95 is 1:35."""
    return f"{minutes // 60}:{minutes % 60:02}"


def planned(what: str, home: str, said: int) -> tuple[str, int]:
    """A plan's row: its kind, and the minutes of its sections less the exercises left for home."""
    sections = [link for link in links(what) if re.match(r"\d\d .*§", link[0])]
    if not sections:
        return ("breaks" if re.match(r"\*\*(Break|Lunch)\*\*", what) else "talk"), said
    minutes = sum(taught_in(path).get(anchor, 0) for _, path, anchor in sections)
    for _, path, anchor in links(home):
        minutes -= sum(e.minutes for e in lesson(path).exercises if e.cell == anchor)
    return "sections", minutes


def write_plan(plan: str) -> str:
    """A plan's text with its clock, its minutes and its sum put right."""
    now, spent = 0, {"sections": 0, "talk": 0, "breaks": 0}
    lines = plan.split("\n")
    for i, line in enumerate(lines):
        row = cells_of(line)
        if not is_row(line) or not re.fullmatch(r"\d+:\d\d", row[0]):
            continue
        if row[2] == "End":
            lines[i] = line.replace(row[0], clock(now), 1)
            continue
        kind, minutes = planned(row[2], row[3], int(row[1]))
        lines[i] = re.sub(r"^\| \S+ \| \d+ ", f"| {clock(now)} | {minutes} ", line)
        now += minutes
        spent[kind] += minutes
    told = "Sections {sections} minutes, checkpoints and talk {talk}, breaks {breaks}"
    return SUM.sub(f"{told.format(**spent)}: {now} in all.", "\n".join(lines))


def plans(guide: str) -> dict[str, str]:
    """Each plan's text, by the words of its heading (or bold line) before a colon."""
    text = parts(guide)["Three plans"]
    split = re.split(r"^(?:### |\*\*(?=Day ))(.+?)(?::.*)?$", text, flags=re.M)
    return {head: body for head, body in zip(split[1::2], split[2::2], strict=True) if rows(body)}


def write_plans(guide: str) -> str:
    """The guide with all of its plans put right."""
    for plan in plans(guide).values():
        guide = guide.replace(plan, write_plan(plan))
    return guide
