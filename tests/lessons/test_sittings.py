"""The budget of a sitting: the formula, what it writes, and rules that are shown to fail."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4
from sitting_rules import SITTING_RULES

from tools import budget

WORDS = "word " * 200
PICTURE = v4.new_output("display_data", data={"image/png": "aaaa"})


def printed(text: str) -> NotebookNode:
    return v4.new_output("stream", name="stdout", text=text)


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    return v4.new_code_cell(source, outputs=[*outputs], metadata={"tags": [*tags]})


def prose(source: str, *tags: str) -> NotebookNode:
    return v4.new_markdown_cell(source, metadata={"tags": [*tags]})


def lesson() -> NotebookNode:
    """A lesson that keeps to every rule, of four short sections."""
    cells = [
        prose("# 01 · Rows"),
        prose("- **Time:** 14 minutes."),
        code("import torch"),
    ]
    for n in (1, 2, 3, 4):
        cells += [
            prose(f"## {n}. Row {n}\n\n**Predict** it."),
            code(f"row = torch.arange({n})\nassert len(row) == {n}\nprint(len(row))", printed("1")),
            code("fig = draw(row)\ndef draw(x):\n    return x", PICTURE, tags=("hide-input",)),
        ]
    for n in (1, 2):
        cells += [
            prose(f"### Exercise {n}\n*core · minutes: 4*"),
            code("answer = ...", printed("Not attempted"), tags=("exercise",)),
            prose(f"<details>{WORDS}</details>", "solution"),
        ]
    return v4.new_notebook(cells=[*cells, prose("## In short")])


HERE = Path("notebooks/01_rows.ipynb")


def cell(nb: NotebookNode, has: str) -> NotebookNode:
    return next(c for c in nb.cells if has in c.source)


def replacing(old: str, new: str) -> Callable[[NotebookNode], None]:
    def breakage(nb: NotebookNode) -> None:
        found = cell(nb, old)
        found.source = found.source.replace(old, new, 1)

    return breakage


def unfolded(nb: NotebookNode) -> None:
    cell(nb, "fig = draw").metadata = nbformat.from_dict({"tags": []})


def folded(nb: NotebookNode) -> None:
    cell(nb, "row = torch").metadata = nbformat.from_dict({"tags": ["hide-input"]})


def without_exercise(nb: NotebookNode) -> None:
    nb.cells = [c for c in nb.cells if "Exercise 1" not in c.source]


BREAKAGES: dict[str, dict[str, Callable[[NotebookNode], object]]] = {
    "sitting": {
        "too long": replacing("**Predict** it.", WORDS * 40),
        "untrue": replacing("14 minutes", "15 minutes"),
        "one exercise": without_exercise,
        "three sections": replacing("## 4. Row 4", "Row 4"),
    },
    "unpacked": {
        "a pair": replacing("row = torch.arange(1)", "row, other = torch.arange(1), 2"),
        "a chain": replacing("row = torch.arange(1)", "row = other = torch.arange(1)"),
        "a walrus": replacing("row = torch.arange(1)", "(row := torch.arange(1))"),
        "two statements": replacing("print(len(row))", "print(len(row)); print(2)"),
        "two calls": replacing("print(len(row))", "print(len(row)), print(2)"),
        "a condition": replacing("assert len(row) == 1", "assert (len(row) == 1 if row else True)"),
        "a long line": replacing("print(len(row))", f"print(len(row))  # {'x' * 88}"),
    },
    "shows_values": {
        "a sentence": replacing("print(len(row))", "print('as it should be')"),
        "nothing": lambda nb: cell(nb, "row = torch").__setitem__("outputs", []),
    },
    "drawing_folded": {"a drawing in the open": unfolded, "code hidden": folded},
    "sections_alone": {
        "a name of section 2": replacing("row = torch.arange(3)", "row = torch.arange(3 + last)"),
    },
}


def complaints(nb: NotebookNode, path: Path = HERE) -> dict[str, list[str]]:
    found = {rule.__name__: list(rule(nb, path)) for rule in SITTING_RULES}
    return {name: said for name, said in found.items() if said}


def test_a_good_lesson_has_no_complaint() -> None:
    assert complaints(lesson()) == {}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, ways in BREAKAGES.items() for what in ways]
)
def test_a_rule_fails_on_its_breakage(name: str, what: str) -> None:
    nb = lesson()
    cell(nb, "arange(2)").source += "\nlast = 2"
    assert complaints(nb).keys() <= {"sitting"}  # a line more may be a minute more
    BREAKAGES[name][what](nb)
    assert name in complaints(nb)


def test_every_rule_has_a_breakage() -> None:
    assert set(BREAKAGES) == {rule.__name__ for rule in SITTING_RULES}


def test_a_section_may_use_the_set_up_and_section_1() -> None:
    nb = lesson()
    cell(nb, "arange(1)").source += "\nfirst = 1"
    cell(nb, "arange(3)").source += "\nprint(first, torch)"
    assert "sections_alone" not in complaints(nb)


def test_an_assertion_may_show_its_value_as_the_cells_result() -> None:
    nb = lesson()
    replacing("print(len(row))", "print('length')\nlen(row)")(nb)
    assert "shows_values" not in complaints(nb)


def test_the_formula() -> None:
    spent = budget.cost(lesson())
    assert (spent.lines, spent.figures, spent.predicts) == (1 + 4 * 3, 4, 4)
    assert (spent.exercises, spent.exercise_minutes) == (2, 8)
    assert spent.words == 4 + 4 + 4 * 6 + 2 * 7 + 3
    minutes = spent.words / 200 + 13 * 8 / 60 + 4 * 0.5 + 4 * 0.5 + 8
    assert spent.minutes == pytest.approx(minutes)


def test_solutions_stubs_and_folded_code_cost_nothing() -> None:
    nb = lesson()
    before = budget.cost(nb)
    cell(nb, "answer = ...").source += "\nx = 1" * 9
    cell(nb, "fig = draw").source += "\nx = 1" * 9
    cell(nb, "<details>").source += WORDS
    assert budget.cost(nb) == before


def test_a_program_that_a_cell_shows_is_read_as_code() -> None:
    shown = "Two lines:\n```python\nimport torch\n\ntorch.ones(2)\n```\n"
    program = v4.new_output("display_data", data={"text/markdown": shown})
    assert budget.cost_of(code("show()", program)).lines == 3


def test_what_is_over_is_named() -> None:
    nb = lesson()
    cell(nb, "Row 1").source += WORDS * 45
    said = budget.too_much(nb, HERE)
    assert "59.0 minutes, and 45 are a sitting" in said and "words, about 2,000 fit" in said
    assert "lines" not in said
    side = Path("notebooks/more/01_rows.ipynb")
    assert budget.limit(side) == budget.SIDE and budget.limit(HERE) == budget.LESSON
    assert budget.limit(Path("notebooks/00_start.ipynb")) == budget.START


def test_the_card_is_written_and_read() -> None:
    nb = lesson()
    replacing("14 minutes", "99 minutes")(nb)
    budget.write_card(nb)
    assert budget.card(nb) == 14 and "- **Time:** 14 minutes." in nb.cells[1].source
    replacing("**Time:**", "Time")(nb)
    with pytest.raises(ValueError, match="the card says no"):
        budget.card(nb)


def test_the_sections_add_up_to_the_card() -> None:
    nb = lesson()
    parts = budget.sections(nb, {"In short"})
    ids = [c.id for c in nb.cells if c.source.startswith("## ")][:4]
    assert [*parts] == [*ids, "closing"]
    assert sum(parts.values()) == 14 and parts[ids[3]] >= 8
