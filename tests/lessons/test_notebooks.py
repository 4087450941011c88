"""Every lesson keeps to the rules beside this file; each rule is shown to fail on its breakage."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4
from notebook_rules import (
    RULES,
    Rule,
    broken_links,
    few_ignored,
    links,
    normal,
    number,
    skeleton,
)
from sitting_rules import SITTING_RULES

from tools import lessons as course
from tools.lessons import digests, normalise, read, text

ROOT = Path(__file__).parents[2]
TAUGHT = course.taught()

PROSE = "The rows stand in order, and an id counts them from zero, so each id names one row. " * 5
SECTION = """
%%
## {n}. What stands in row {n}

**Predict** what the next cell prints. {prose} See [`the first`](#1.-What-stands-in-row-1).
%% code
print({n})
-> {n}
%%
{prose}
%% code measured
show(fig, alt=alt)
-> figure
%%
### Exercise {n}
*core · 5 minutes · move on if the hint does not help.*
%% code exercise
answer = ...
check.row_{n}(answer)
-> Not attempted: replace the dots.
%% solution
<details><summary>Solution</summary>

```python
# the row itself
answer = {n}
```

</details>
"""
GOOD = f"""
%%
# 01 · Rows

Which row does an id fetch?
%%
- **Time:** 20 minutes.
- **Know before:** what a tensor is.
- **After this lesson you can**
  - name the row of an id;
  - count from zero;
  - read a shape.

{PROSE}
%% code claim-C01
import torch
{"".join(SECTION.format(n=n, prose=PROSE) for n in (1, 2, 3))}
%%
## When it goes wrong
{PROSE}
%%
## Claims settled
C01.
%%
## In short

- An id names a row.
- Ids count from zero.
- A row has a shape.

## Next

[02 · One-hot](02_one_hot.ipynb)

## Further reading

- [The documentation](https://pytorch.org/docs).
"""
ALT = "Three rows of a table, the middle one lit, because id 1 names it."


def output(shows: str) -> NotebookNode:
    """What a cell shows: a figure, or a line on stdout."""
    if shows != "figure":
        return v4.new_output("stream", name="stdout", text=shows + "\n")
    data = {"image/png": base64.b64encode(b"a picture").decode()}
    return v4.new_output("display_data", data=data, metadata={"image/png": {"alt": ALT}})


def notebook(script: str) -> NotebookNode:
    """A normal, executed notebook from text: cells after %%, a code cell's output after ->."""
    nb, count = v4.new_notebook(), 0
    for part in script.split("\n%%")[1:]:
        kind, _, body = part.partition("\n")
        source, *shows = body.strip().split("\n-> ")
        kind, *tags = [*kind.split(), "markdown"] if "code" not in kind else kind.split()
        if kind == "code":
            count += 1
            cell = v4.new_code_cell(source, execution_count=count)
            cell.outputs = [output(show) for show in shows]
        else:
            cell, tags = v4.new_markdown_cell(source), [t for t in [kind] if t == "solution"]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        nb.cells.append(cell)
    return measured(nb)


def measured(nb: NotebookNode) -> NotebookNode:
    """The notebook, normalised, its measuring cells marked as made by the code that it holds."""
    for i, digest in digests(nb).items():
        nb.cells[i].metadata["digest"] = digest
    return normalise(nb)


def cell(nb: NotebookNode, tag: str = "", has: str = "") -> NotebookNode:
    """The first cell with that tag, or with that text in its source."""
    return next(
        c for c in nb.cells if has in c.source and (not tag or tag in c.metadata.get("tags", []))
    )


def replacing(old: str, new: str) -> Callable[[NotebookNode], None]:
    """A breakage: `old` in the first source that has it becomes `new`; digests follow the code."""

    def breakage(nb: NotebookNode) -> None:
        target = cell(nb, has=old)
        target.source = target.source.replace(old, new, 1)
        for i, digest in digests(nb).items():
            nb.cells[i].metadata["digest"] = digest

    return breakage


def setting(has: str, key: str, value: object) -> Callable[[NotebookNode], None]:
    """A breakage: the field `key` of the first cell with that text."""
    return lambda nb: cell(nb, has=has).__setitem__(key, value)


def showing(out: NotebookNode | str, has: str = "print(1)") -> Callable[[NotebookNode], None]:
    """A breakage: the first cell with that text shows `out`, or prints that line, besides."""

    def breakage(nb: NotebookNode) -> None:
        outs = cell(nb, has=has).outputs
        if isinstance(out, str):
            outs[0].text += out + "\n"
        else:
            outs.append(nbformat.from_dict(out))

    return breakage


def picture(**changes: object) -> Callable[[NotebookNode], None]:
    """A breakage of the first figure: its alt text or its bytes."""

    def breakage(nb: NotebookNode) -> None:
        out = cell(nb, tag="measured").outputs[0]
        out.metadata["image/png"]["alt"] = changes.get("alt", ALT)
        raw = b"x" * changes.get("size", 9)
        out.data["image/png"] = base64.b64encode(raw).decode()

    return breakage


def without_figures(nb: NotebookNode) -> None:
    for c in nb.cells:
        if "measured" in c.metadata.get("tags", []):
            c.outputs = [output("no figure")]
            c.metadata = nbformat.from_dict({})


def silent(nb: NotebookNode) -> None:
    for has in ("print(1)", "print(2)", "print(3)"):
        cell(nb, has=has).outputs = []
    nb.cells.append(v4.new_code_cell("x = 1", id="x-1", execution_count=11))


def wordy(nb: NotebookNode) -> None:
    nb.cells.append(v4.new_markdown_cell((PROSE * 20).strip(), id="a-wall-of-text"))


def long_set_up(nb: NotebookNode) -> None:
    for c in nb.cells:
        if c.cell_type == "code":
            c.source = "import torch\n" * 5 + c.source
    nb.cells = measured(nb).cells


def two_set_ups(nb: NotebookNode) -> None:
    i = nb.cells.index(cell(nb, has="## 1. "))
    nb.cells[i], nb.cells[i + 1] = nb.cells[i + 1], nb.cells[i]


def unpaired(nb: NotebookNode) -> None:
    for tag in ("exercise", "solution"):
        cell(nb, tag).metadata = nbformat.from_dict({})


STDERR = v4.new_output("stream", name="stderr", text="a warning\n")
ERROR = v4.new_output("error", ename="ValueError", evalue="no row", traceback=["no row"])
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
BREAKAGES: dict[str, dict[str, Callable[[NotebookNode], object]]] = {
    "executed": {
        "not run": setting("print(1)", "execution_count", None),
        "empty": replacing("print(1)", ""),
        "out of order": setting("print(2)", "execution_count", 9),
        "little shown": silent,
    },
    "no_errors": {"stderr": showing(STDERR), "error": showing(ERROR)},
    "figures_described": {
        "no alt": picture(alt=""),
        "empty words": picture(alt="Figure of a table with three rows, one of them lit."),
        "100 kB": picture(size=100_000),
    },
    "no_leaks": {
        "a path printed": showing("see /usr/lib/python3/x.py"),
        "a home": replacing("Which row", "Which /home/row"),
        "an address": showing("<object at 0x7f0123456789>"),
        "a time": showing("on 2030-01-02 03:04", has="print(3)"),
    },
    "normal": {
        "metadata": lambda nb: nb.metadata.__setitem__("widgets", {}),
        "a machine's id": setting("print(1)", "id", "0badcafe"),
        "a double id": lambda nb: nb.cells[2].__setitem__("id", nb.cells[1].id),
        "collapsed": lambda nb: nb.cells[1].metadata.__setitem__("collapsed", True),
        "a widget": showing(v4.new_output("display_data", data=WIDGET)),
        "stale figure": setting("show(fig", "source", "show(fig, alt=other)"),
    },
    "known_tags": {
        "misspelt": lambda nb: nb.cells[1].metadata.__setitem__("tags", ["exercice"]),
        "a time beside a figure": showing(output("3 ms"), has="show(fig"),
    },
    "opening": {
        "number": replacing("# 01 ·", "# 02 ·"),
        "no question": replacing("Which row does an id fetch?", "About rows."),
        "two sentences": replacing("Which row", "Ids fetch. Which row"),
        "no minutes": replacing("20 minutes", "Soon"),
        "two verbs": replacing("  - count from zero;\n", ""),
        "no imports": replacing("import torch", "torch = 1"),
    },
    "skeleton": {
        "order": replacing("## Claims settled", "## Claims"),
        "numbering": replacing("## 3. ", "## 4. "),
        "a level skipped": replacing("### Exercise 1", "#### Exercise 1"),
        "two titles": replacing("C01.", "# C01"),
        "two bullets": replacing("- An id names a row.\n", ""),
        "code before section 1": two_set_ups,
    },
    "plain": {
        "hype": replacing("C01.", "Obviously."),
        "emoji": replacing("C01.", "C01 \U0001f600"),
        "long": replacing("print(2)", "print(2)\n" * 15 + "print(2)"),
    },
    "exercises_whole": {
        "no solution": replacing("```python", "```"),
        "not folded": replacing("</summary>\n", "</summary>"),
        "no level": replacing("core · ", ""),
        "no minutes": replacing("5 minutes", "soon"),
        "no check": replacing("check.row_1(answer)", "print(answer)"),
        "another's check": replacing("check.row_1(answer)", "other.row_1(answer)"),
        "its solution is used below": replacing("print(2)", "print(answer)"),
        "none": lambda nb: [unpaired(nb) for _ in range(3)],
        "solved": lambda nb: cell(nb, "exercise").outputs[0].__setitem__("text", "Right.\n"),
    },
    "enough_figures": {"none": without_figures},
    "rhythm": {"a wall of text": wordy, "a wall of code": long_set_up},
    "links": {
        "no file": replacing("C01.", "[C01](../nowhere.csv)"),
        "no heading": replacing("C01.", "[C01](#Nowhere)"),
        "not linked on": replacing("(02_one_hot.ipynb)", "(01_rows.ipynb)"),
    },
    "predicted": {
        "two without": lambda nb: [replacing("**Predict**", "See")(nb) for _ in range(2)]
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the good notebook, in a folder where its links lead somewhere."""
    monkeypatch.setattr(course, "SIDE_LESSONS", ())
    for name in ("01_rows.ipynb", "02_one_hot.ipynb"):
        nbformat.write(notebook(GOOD), tmp_path / name)
    return tmp_path / "01_rows.ipynb"


CASES = [
    pytest.param(rule, path, id=f"{path.stem}-{rule.__name__}")
    for path in TAUGHT
    for rule in RULES + SITTING_RULES
]


@pytest.mark.parametrize(("rule", "path"), CASES)
def test_lesson(rule: Rule, path: Path) -> None:
    complaints = list(rule(read(path), path))
    assert not complaints, "\n".join([path.name, *complaints])


def test_each_exercises_solution_runs_below_its_stub(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.path.suffix == ".ipynb"]
    if not items:
        pytest.skip("No notebook is run in this session")
    stubs = [i for i in items if "exercise" in course.tags(i.cell) and "Solution" not in i.name]
    solved = [item.name for item in items if item.name.startswith("Solution of ")]
    assert solved == [f"Solution of {stub.cell.id}" for stub in stubs] and stubs


def test_lessons_are_stored_as_make_lessons_stores_them() -> None:
    other = [p.name for p in course.every() if p.read_bytes() != text(normalise(read(p))).encode()]
    assert other == []


def test_the_list_is_what_is_there() -> None:
    """All that git has below notebooks/ is in the one list, and all of the list is there."""
    command = ["git", "-C", str(ROOT), "ls-files", "notebooks"]
    kept = subprocess.run(command, capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("no git clone")
    names = {ROOT / name for name in kept.stdout.splitlines() if name.endswith(".ipynb")}
    odd = sorted(path.name for path in names ^ set(course.every()))
    assert not odd, f"{odd}: git add them, or put them into the list in tools/lessons.py"


def test_lessons_are_numbered_without_a_gap() -> None:
    assert [number(p) for p in course.paths()] == list(range(12))
    assert {number(p) for p in course.side_paths()} <= set(range(12))


def test_few_cells_of_the_course_have_ignored_output() -> None:
    assert list(few_ignored([read(p) for p in course.every()])) == []


def test_three_percent_of_ignored_cells_pass_and_more_do_not(here: Path) -> None:
    books = [read(here) for _ in range(10)]  # 100 code cells
    for nb in books[:3]:
        cell(nb, has="print(1)").metadata = nbformat.from_dict({"tags": ["nbval-ignore-output"]})
    assert list(few_ignored(books)) == []
    cell(books[3], has="print(1)").metadata = nbformat.from_dict({"tags": ["nbval-skip"]})
    assert list(few_ignored(books)) == ["4 of 100 code cells have ignored output, at most 3%"]


def test_readme_links_lead_somewhere() -> None:
    assert list(broken_links((ROOT / "README.md").read_text(encoding="utf8"), ROOT)) == []


def test_broken_readme_link_is_found(here: Path) -> None:
    good = "[one](01_rows.ipynb), [two](https://pytorch.org), [three](01_rows.ipynb#In-short)"
    assert list(broken_links(good, here.parent)) == []
    bad = "[one](03_none.ipynb) and [two](01_rows.ipynb#in-short)"
    assert len(list(broken_links(bad, here.parent))) == 2


def test_ids_that_nbformat_mends_are_found(here: Path) -> None:
    nb = read(here)
    nb.cells[2]["id"] = nb.cells[1].id
    here.write_text(json.dumps(nb), encoding="utf8")
    assert any("id not normalised" in c for c in normal(read(here), here))


def test_more_links_to_each_side_lesson(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nb = read(here)
    monkeypatch.setattr(course, "SIDE_LESSONS", ("01_beside", "02_another"))
    assert list(links(nb, here)) == ["More does not link to 01_beside.ipynb"]
    (here.parent / "more").mkdir()
    (here.parent / "more" / "01_beside.ipynb").touch()
    replacing("## Next", "## More\n\n- [Beside](more/01_beside.ipynb)\n\n## Next")(nb)
    assert list(links(nb, here)) == []


def test_next_names_a_lesson_to_come_without_a_link(here: Path) -> None:
    nb = read(here)
    (here.parent / "02_one_hot.ipynb").unlink()
    assert list(links(nb, here)) == ["link to 02_one_hot.ipynb: no such file"]
    replacing("[02 · One-hot](02_one_hot.ipynb)", "02 · One-hot, to come.")(nb)
    assert list(links(nb, here)) == []
    replacing("02 · One-hot, to come.", "That is all.")(nb)
    assert list(links(nb, here)) == ["Next does not name lesson 02"]


def test_lesson_00_may_differ_where_it_does(here: Path) -> None:
    nb = read(here)
    nb.cells = [c for c in nb.cells if "goes wrong" not in c.source and "settled" not in c.source]
    replacing("# 01 ·", "# 00 ·")(nb)
    replacing("[02 · One-hot](02_one_hot.ipynb)", "[01 · Rows](01_rows.ipynb)")(nb)
    assert [c for rule in RULES[6:] for c in rule(nb, here.with_name("00_start.ipynb"))] == []
    replacing("## Next", "## And then")(nb)
    assert list(skeleton(nb, here.with_name("00_start.ipynb"))) == ["no section 'Next'"]


def test_good_notebook_passes(here: Path) -> None:
    nb = read(here)
    assert [f"{rule.__name__}: {c}" for rule in RULES for c in rule(nb, here)] == []


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, ways in BREAKAGES.items() for what in ways]
)
def test_rule_fails_on_breakage(name: str, what: str, here: Path) -> None:
    nb = read(here)
    BREAKAGES[name][what](nb)
    assert {rule.__name__ for rule in RULES if list(rule(nb, here))} == {name}


def test_every_rule_has_a_breakage() -> None:
    assert set(BREAKAGES) == {rule.__name__ for rule in RULES}
