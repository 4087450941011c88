"""The instructor's pages agree with the lessons, and the guide's plans with the pages.

Each rule takes a page and its lesson and yields complaints; the last tests break a good page and a
good plan once per rule, to show that the rule can fail.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tools import budget, lessons, teaching
from tools.teaching import (
    PAGES,
    SECTIONS,
    SUM,
    Lesson,
    lesson,
    links,
    minutes_of,
    page_of,
    parts,
    plans,
    rows,
    write_plans,
)

LESSONS = lessons.paths()
PARTS = [SECTIONS, "Exercises: wrong answers to expect", "Checkpoint", "When late"]
# Each plan's tables, in order: its heading, and how many minutes of it are no break, at most.
PLANS = {"Half a day": 160, "A day": 360, "Day one": 360, "Day two": 360}


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
        if inside and minutes <= inside:  # without one, a section may take less than half a minute
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


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_page_agrees_with_its_lesson(path: Path) -> None:
    page, about = page_of(path), lesson(path)
    assert not [complaint for rule in RULES for complaint in rule(page, about)]


def test_there_is_no_page_without_a_lesson() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")}
    assert pages == {"guide", *(path.stem for path in LESSONS)}


def wrong_links(plan: str) -> Iterator[str]:
    """Complaints about a plan's links: a section of another name or out of its order, an exercise
    of another section.
    """
    done: dict[Path, list[str]] = {}
    for _, _, what, home in rows(plan)[:-1]:
        sections = [link for link in links(what) if re.match(r"\d\d .*§", link[0])]
        for words, path, anchor in sections:
            title = lesson(path).sections.get(anchor, "none").replace(". ", " ", 1)
            if words != f"{lessons.label(path)} §{title}":
                yield f"[{words}] leads to {path.name}, section {title}"
            before = done.setdefault(path, [])
            order = [name for name in lesson(path).sections if name in (*before, anchor)]
            if [*before, anchor] != order:
                yield f"[{words}] stands before a section that comes first in its lesson"
            before.append(anchor)
        for words, path, anchor in links(home):
            left = [e for e in lesson(path).exercises if e.cell == anchor]
            if not left or left[0].section not in [section for _, _, section in sections]:
                yield f"[{words}] is no exercise of this row's sections"


GUIDE = PAGES / "guide.md"


def test_the_plans_add_up() -> None:
    found = plans(GUIDE.read_text(encoding="utf-8"))
    assert [*found] == [*PLANS]
    for name, plan in found.items():
        assert not [*wrong_links(plan)], name
        sections, talk, _, _ = map(int, SUM.search(plan).groups())
        assert PLANS[name] - 10 < sections + talk <= PLANS[name], name


def test_the_guide_leads_to_every_page_and_its_links_lead() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    found = {path for _, path, _ in links(guide)}
    assert {PAGES / f"{path.stem}.md" for path in LESSONS} <= found
    for words, path, anchor in links(guide):
        assert path.exists(), words
        taught = path in lessons.taught()
        assert not taught or not anchor or anchor in lesson(path).cells, words


BROKEN = {
    of_form: ("## Checkpoint", "## A question"),
    with_all_sections: ("[2. Words become ids]", "[2. Words]"),
    with_the_cards_minutes: (") | 9 |", ") | 8 |"),
    with_all_exercises: ("[Exercise 2: ", "[Exercise 3: "),
    with_links_that_lead: ("#1-ids-in-rows-out", "#no-such-cell"),
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
        ("[07 §1 A", "[07 §2 A", "leads to"),
        ("#exercise-2-a-table-with-new-words", "#5-what-to-choose", "no exercise"),
        ("#4-words-that-training-never-had", "#1-a-question-about-a-picture", "comes first"),
    ],
)
def test_a_plan_can_link_wrongly(old: str, new: str, part: str) -> None:
    plan = plans(GUIDE.read_text(encoding="utf-8"))["Day two"]
    assert old in plan
    assert any(part in complaint for complaint in wrong_links(plan.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| 0:05 |", "| 0:06 |"),
        ("| 0:05 | 9 |", "| 0:05 | 8 |"),
        ("| 0:05 | 9 |", "| 0:06 | 9 |"),
        ("breaks 20: 1", "breaks 20: 2"),
    ],
)
def test_a_plan_is_put_right(old: str, new: str) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert old in guide
    assert write_plans(guide.replace(old, new, 1)) == guide


def test_a_pages_minutes_are_the_formulas(tmp_path: Path) -> None:
    prose = ["# 01 · Rows", "- **Time:** 4 minutes", "## 1. One\n" + "word " * 597, "## In short"]
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_markdown_cell(text, id=f"cell-{i}") for i, text in enumerate(prose)]
    nbformat.write(nb, tmp_path / "01_rows.ipynb")
    page = (
        f"# Rows\n\n## {SECTIONS}\n\n| section | minutes | ask | watch |\n|:--|--:|:--|:--|\n"
        "| [1. One](../../notebooks/01_rows.ipynb#cell-2) | {} | a | b |\n"
        "| closing | {} | c | d |\n\n## Checkpoint\n\n| x | 9 | y | z |\n"
    )
    assert budget.cost(nb).words == 4 + 4 + 600 + 3
    written = teaching.write_minutes(page.format(7, 7), tmp_path / "01_rows.ipynb")
    assert written == page.format(3, 0)
