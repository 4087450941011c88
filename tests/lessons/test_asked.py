"""Questions people ask: each answer is short, stands alone, and is asserted or proved elsewhere."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from notebook_rules import LINK, executed, known_tags, no_errors, no_leaks, normal, plain

from tools.lessons import asked_paths, read

PAGES = asked_paths()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_keeps_to_the_rules(path: Path) -> None:
    nb = read(path)
    rules = (executed, no_errors, no_leaks, normal, known_tags, plain)
    assert [complaint for rule in rules for complaint in rule(nb, path)] == []
    assert nb.cells[0].source.startswith("# Asked: ")
    assert nb.cells[1].id == "set-up"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_question_is_answered_by_a_cell_or_by_a_link_to_one(path: Path) -> None:
    cells = read(path).cells[2:]
    bare = []
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            asserted = after is not None and after.cell_type == "code"
            linked = re.search(r"\]\(\.\./[^)]+\.ipynb|\]\([a-z_]+\.ipynb#|\]\(#", cell.source)
            if not (asserted or linked):
                bare.append(cell.id)
    assert bare == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_cell_is_short_and_asserts_and_shows(path: Path) -> None:
    wrong = []
    for cell in read(path).cells:
        if cell.cell_type != "code" or cell.id == "set-up":
            continue
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if len(lines) > 8 or "assert" not in cell.source or not cell.outputs:
            wrong.append((cell.id, len(lines)))
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_link_leads_to_a_cell(path: Path) -> None:
    dead = []
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        for link in LINK.findall(cell.source):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            if ":" in link:  # an address
                continue
            if not target.is_file():
                dead.append((cell.id, link))
            elif anchor and anchor not in {other.id for other in read(target).cells}:
                dead.append((cell.id, link))
    assert dead == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_cell_stands_alone_and_holds_under_another_seed(path: Path) -> None:
    """As a reader runs one: after the set-up, and nothing else."""
    set_up, *others = [cell for cell in read(path).cells if cell.cell_type == "code"]
    space: dict[str, object] = {}
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(set_up.source, space)
            for cell in others:
                torch.manual_seed(1)
                exec(cell.source, {**space})
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
