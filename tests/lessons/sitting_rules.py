"""What makes a notebook one sitting: its budget, code read once, sections that can be skipped.

Rules as in notebook_rules.py, for every lesson and side lesson in its second form.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from notebook_rules import Rule, code_cells, names_of, number, sections, tree_of

from tools import budget
from tools.lessons import is_side, tags


def sitting(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A lesson is one sitting, and its card says truly how long."""
    if excess := budget.too_much(nb, path):
        yield excess
    spent, may = budget.cost(nb), budget.limit(path)
    fewest, most = may.exercises
    if not fewest <= spent.exercises <= most:
        yield f"{spent.exercises} exercises, not {fewest} to {most}"
    said, minutes = budget.card(nb), round(spent.minutes)
    if said != minutes:
        yield f"the card says {said} minutes, the formula {minutes}; run make tables"
    if number(path) == 0:
        return
    fewest, most = (2, 4) if is_side(path) else (4, 6)
    numbered = [words for words in sections(nb) if re.match(r"\d+\. ", words)]
    if not fewest <= len(numbered) <= most:
        yield f"{len(numbered)} numbered sections, not {fewest} to {most}"


def trees(nb: NotebookNode) -> Iterator[tuple[NotebookNode, ast.Module]]:
    """Each code cell with its syntax tree."""
    for cell in code_cells(nb):
        yield cell, tree_of(cell)


def packed(node: ast.AST) -> str:
    """What is packed in this statement or expression; "" if nothing is."""
    if isinstance(node, ast.NamedExpr):
        return "a walrus"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
        if any(isinstance(part, ast.Call) for part in node.value.elts):
            return "several calls in one line"
    if isinstance(node, ast.Assert):
        if any(isinstance(part, ast.IfExp) for part in ast.walk(node)):
            return "a condition inside an assertion"
    if isinstance(node, ast.Assign):
        pair = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
        if pair or len(node.targets) > 1:
            return "several assignments in one"
    return ""


def unpacked(nb: NotebookNode, path: Path) -> Iterator[str]:
    """One statement a line, in lines that fit: code is read, and once."""
    for cell, tree in trees(nb):
        for line in cell.source.splitlines():
            if len(line) > 88:
                yield f"{cell.id}: a line of {len(line)} characters, at most 88"
        starts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        if len(starts) > len(set(starts)):
            yield f"{cell.id}: two statements in a line"
        for node in ast.walk(tree):
            if what := packed(node):
                yield f"{cell.id}: {what}, line {node.lineno}"


def shows_values(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Beside an assertion stands the value that the reader predicted, not our own sentence."""
    for cell, tree in trees(nb):
        nodes = list(ast.walk(tree))
        if not any(isinstance(node, ast.Assert) for node in nodes) or budget.folded(cell):
            continue
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        prints = [call for call in calls if getattr(call.func, "id", "") == "print"]
        constant = all(isinstance(part, ast.Constant) for call in prints for part in call.args)
        if not cell.outputs:
            yield f"{cell.id}: asserts, and shows nothing"
        elif prints and constant and not ends_on_a_value(tree):
            yield f"{cell.id}: asserts, and prints only a sentence of ours"


def ends_on_a_value(tree: ast.Module) -> bool:
    """Whether the cell's last line is an expression that Jupyter shows, other than a constant."""
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or isinstance(last.value, ast.Constant):
        return False
    return getattr(getattr(last.value, "func", None), "id", "") != "print"


def drawing_folded(nb: NotebookNode, path: Path) -> Iterator[str]:
    """How a figure is drawn is not what the lesson is about: its code is folded, and only that."""
    for cell in code_cells(nb):
        draws = any("image/png" in out.get("data", {}) for out in cell.outputs)
        if draws and not budget.folded(cell):
            yield f"{cell.id}: draws, and is not folded: tag it hide-input"
        if budget.folded(cell) and not draws:
            yield f"{cell.id}: folded, and draws nothing"


def sections_alone(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A section needs the set-up cell and section 1 at most, so that a teacher can skip the others.

    The stub of an exercise is left out: other cells must not need what it sets.
    """
    if number(path) == 0:
        return
    known = set(dir(builtins)) | {"display", "get_ipython"}
    here, own, before = 0, set(), set()
    for cell in nb.cells:
        if cell.cell_type == "markdown" and budget.SECTION.search(cell.source):
            if here == 1:
                before |= own
            here, own = here + 1, set()
        elif cell.cell_type == "code":
            sets, reads = names_of(tree_of(cell))
            if missing := sorted(reads - sets - own - before - known):
                yield f"{cell.id}: needs {', '.join(missing)} of another section"
            if "exercise" not in tags(cell):
                (own if here else before).update(sets)


SITTING_RULES: list[Rule] = [
    sitting,
    unpacked,
    shows_values,
    drawing_folded,
    sections_alone,
]
