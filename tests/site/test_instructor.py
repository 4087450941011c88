"""The instructor's pages agree with the lessons, and the guide's plans with the pages.

Each rule takes a page and its lesson and yields complaints; the last tests break a good page and a
good plan once per rule, to show that the rule can fail.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.lessons import paths, read, tags

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "site" / "instructor"
LESSONS = paths()
PARTS = ["Sections and minutes", "Exercises: wrong answers to expect", "Checkpoint", "When late"]
CLOSING = {"Claims settled", "In short", "Next", "Further reading"}  # one row of the table
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
SUM = r"^Sections (\d+) minutes, checkpoints and talk (\d+), breaks (\d+): (\d+) in all\.$"
# Each plan's tables, in order: its heading, and what of it is no break.
PLANS = {"Half a day": 160, "A day": 360, "Day one": 360, "Day two": 360}


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
    nb = read(path)
    prose = [c for c in nb.cells if c.cell_type == "markdown" and "solution" not in tags(c)]
    sections: dict[str, str] = {}
    exercises: list[Exercise] = []
    for cell in prose:
        for heading in re.finditer(r"^(##|###) (.+)$", cell.source, re.M):
            if heading[1] == "##" and heading[2] not in CLOSING:
                sections[cell.id] = heading[2]
            if heading[1] == "###" and heading[2].startswith("Exercise"):
                minutes = int(re.search(r"Minutes: (\d+)", cell.source[heading.end() :])[1])
                exercises.append(Exercise(heading[2], cell.id, minutes, [*sections][-1]))
    title = prose[0].source.partition("\n")[0].removeprefix("# ")
    card = int(re.search(r"\*\*Time:\*\* (\d+) minutes", "\n".join(c.source for c in prose))[1])
    return Lesson(title, card, sections, exercises, {c.id for c in nb.cells})


def rows(text: str) -> list[list[str]]:
    """The cells of each table row in a text, without the tables' heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rules = {i for i, row in enumerate(table) if all(re.fullmatch(r":?-+:?", c) for c in row)}
    return [row for i, row in enumerate(table) if i not in rules and i + 1 not in rules]


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
    table = rows(parts(page).get(PARTS[0], ""))
    return {links(row[0])[0][2]: int(row[1]) for row in table if links(row[0])}


def of_form(page: str, about: Lesson) -> Iterator[str]:
    """The same form for every lesson, so that a person in a hurry knows where to look."""
    if not page.startswith(f"# {about.title}: for the instructor\n"):
        yield f"the title is not '# {about.title}: for the instructor'"
    if [*parts(page)] != PARTS:
        yield f"its parts are {[*parts(page)]}, not {PARTS}"
    if "**Before you start:**" not in page:
        yield "it does not say what to do before you start"
    for row in rows(page):
        if len(row) != 4:
            yield f"a table's row has {len(row)} cells, not 4: {row[0]}"


def with_all_sections(page: str, about: Lesson) -> Iterator[str]:
    table = rows(parts(page)[PARTS[0]])
    told = [(row[0], links(row[0])) for row in table]
    named = [(words, anchor) for _, found in told for words, _, anchor in found]
    if named != [(words, cell) for cell, words in about.sections.items()]:
        yield f"its sections are {named}, and the lesson's {about.sections}"
    if told[-1] != ("closing", []) or len(told) != len(about.sections) + 1:
        yield "the last row, and only that, is 'closing'"
    for row in table[:-1]:
        if not (row[2] and row[3]):
            yield f"nothing to ask, or to watch for, in {row[0]}"


def with_the_cards_minutes(page: str, about: Lesson) -> Iterator[str]:
    total = sum(int(row[1]) for row in rows(parts(page)[PARTS[0]]))
    if total != about.minutes:
        yield f"its minutes are {total}, and the lesson's card says {about.minutes}"
    for cell, minutes in minutes_of(page).items():
        inside = sum(exercise.minutes for exercise in about.exercises if exercise.section == cell)
        if minutes <= inside:
            yield f"{cell}: {minutes} minutes, and its exercises alone take {inside}"


def with_all_exercises(page: str, about: Lesson) -> Iterator[str]:
    wrong: dict[str, int] = {}
    for row in rows(parts(page)[PARTS[1]]):
        key = row[0] if row[0] else [*wrong][-1]
        wrong[key] = wrong.get(key, 0) + 1
        if not all(row[1:]):
            yield f"an empty cell: {row}"
    named = [(words, anchor) for key in wrong for words, _, anchor in links(key)]
    if named != [(exercise.title, exercise.cell) for exercise in about.exercises]:
        yield f"its exercises are {named}"
    for exercise, count in wrong.items():
        if count < 2:
            yield f"{exercise} has {count} wrong answer, and at least two are to be expected"


def with_links_that_lead(page: str, about: Lesson) -> Iterator[str]:
    for words, path, anchor in links(page):
        if not path.exists():
            yield f"[{words}] leads to {path.name}, which does not exist"
        elif path.suffix == ".ipynb" and anchor and anchor not in lesson(path).cells:
            yield f"[{words}]: {path.name} has no cell {anchor}"
        elif path in LESSONS and lesson(path).title != about.title:
            yield f"[{words}] leads to another lesson"


RULES = [
    of_form,
    with_all_sections,
    with_the_cards_minutes,
    with_all_exercises,
    with_links_that_lead,
]


def page_of(path: Path) -> str:
    return (PAGES / f"{path.stem}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_page_agrees_with_its_lesson(path: Path) -> None:
    page, about = page_of(path), lesson(path)
    assert not [complaint for rule in RULES for complaint in rule(page, about)]


def test_there_is_no_page_without_a_lesson() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")}
    assert pages == {"guide", *(path.stem for path in LESSONS)}


def plans(guide: str) -> dict[str, str]:
    """Each plan's text, by the words of its heading (or bold line) before a colon."""
    text = parts(guide)["Three plans"]
    split = re.split(r"^(?:### |\*\*(?=Day ))(.+?)(?::.*)?$", text, flags=re.M)
    return {head: body for head, body in zip(split[1::2], split[2::2], strict=True) if rows(body)}


def clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def wrong_plan(plan: str) -> Iterator[str]:
    """Complaints about a plan: its clock, the pages' minutes, its sum."""
    *table, end = rows(plan)
    now, spent = 0, {"sections": 0, "talk": 0, "breaks": 0}
    for time, said, what, home in table:
        if time != clock(now):
            yield f"{time} should be {clock(now)}: {what}"
        sections = [link for link in links(what) if re.match(r"\d\d §", link[0])]
        wanted = int(said)
        kind = "breaks" if re.match(r"\*\*(Break|Lunch)\*\*", what) else "talk"
        if sections:
            kind, wanted = "sections", 0
            for words, path, anchor in sections:
                title = lesson(path).sections.get(anchor, "none").replace(". ", " ", 1)
                if words != f"{path.name[:2]} §{title}":
                    yield f"[{words}] leads to {path.name}, section {title}"
                wanted += minutes_of(page_of(path)).get(anchor, 0)
            for words, path, anchor in links(home):
                left = [e for e in lesson(path).exercises if e.cell == anchor]
                if not left or left[0].section not in [section for _, _, section in sections]:
                    yield f"[{words}] is no exercise of this row's sections"
                wanted -= sum(exercise.minutes for exercise in left)
        if int(said) != wanted:
            yield f"{time}: {said} minutes, and the pages say {wanted}"
        now, spent[kind] = now + int(said), spent[kind] + int(said)
    if end[0] != clock(now) or end[2] != "End":
        yield f"it ends at {clock(now)}, and says {end}"
    told = re.search(SUM, plan, re.M)
    if told is None or [int(n) for n in told.groups()] != [*spent.values(), now]:
        yield f"it adds up to {spent}, {now} in all, and says {told and told[0]}"


GUIDE = PAGES / "guide.md"


def test_the_plans_add_up() -> None:
    found = plans(GUIDE.read_text(encoding="utf-8"))
    assert [*found] == [*PLANS]
    for name, plan in found.items():
        assert not [*wrong_plan(plan)], name
        sections, talk, _, _ = map(int, re.search(SUM, plan, re.M).groups())
        assert sections + talk == PLANS[name], name


def test_the_guide_leads_to_every_page_and_its_links_lead() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    found = {path for _, path, _ in links(guide)}
    assert {PAGES / f"{path.stem}.md" for path in LESSONS} <= found
    for words, path, anchor in links(guide):
        assert path.exists(), words
        assert path not in LESSONS or not anchor or anchor in lesson(path).cells, words


BROKEN = {
    of_form: ("## Checkpoint", "## A question"),
    with_all_sections: ("[2. Words become ids]", "[2. Words]"),
    with_the_cards_minutes: (") | 9 |", ") | 8 |"),
    with_all_exercises: ("[Exercise 2: ", "[Exercise 3: "),
    with_links_that_lead: ("#1-ids-in-rows-out-every-model-that", "#no-such-cell"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_can_fail(rule) -> None:
    page, about = page_of(LESSONS[1]), lesson(LESSONS[1])
    assert not [*rule(page, about)]
    assert BROKEN[rule][0] in page
    assert [*rule(page.replace(*BROKEN[rule], 1), about)]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("| 0:05 |", "| 0:06 |", "0:06 should be 0:05"),
        ("| 0:05 | 10 |", "| 0:05 | 11 |", "the pages say 10"),
        ("[00 §1 Is", "[00 §2 Is", "leads to"),
        ("exercise-2-from-customer-numbers-to", "exercise-3-how-many", "no exercise"),
        ("| 3:00 |", "| 3:01 |", "it ends at 3:00"),
        (": 180 in all.", ": 181 in all.", "adds up to"),
    ],
)
def test_a_plan_can_be_wrong(old: str, new: str, part: str) -> None:
    plan = plans(GUIDE.read_text(encoding="utf-8"))["Half a day"]
    assert old in plan
    assert any(part in complaint for complaint in wrong_plan(plan.replace(old, new, 1)))
