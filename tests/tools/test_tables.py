"""What is drawn is as its sources say, and `make tables` is how it got there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import claims
from tools import tables

README = (tables.ROOT / "README.md").read_text("utf-8")
PAGES = tables.drawn()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(tables.ROOT)))
def test_every_table_is_as_it_should_be(path: Path) -> None:
    text = path.read_text("utf-8")
    assert PAGES[path](text) == text, "run `make tables`"


def test_the_readme_shows_four_claims_and_the_page_all() -> None:
    page = (tables.ROOT / "site" / "claims.md").read_text("utf-8")
    for claim in claims.read():
        assert (claim.evidence in README) == (claim.id in tables.SURPRISING)
        assert claim.evidence in page


def test_the_readmes_first_lines_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    """Run as a reader would: the three lines print what stands below them."""
    code, wanted = re.findall(r"^```\w*\n(.*?)^```$", README, re.S | re.M)[:2]
    with torch.random.fork_rng(devices=[]):
        exec(code, {"torch": torch, "nn": nn})
    assert len(code.splitlines()) == 3 and capsys.readouterr().out == wanted


def test_the_readme_is_short() -> None:
    """Words that a reader reads: without addresses and code."""
    text = re.sub(r"```.*?```|\]\([^)]*\)|<!--.*?-->", "", README, flags=re.S)
    assert len(re.findall(r"\w[^\s|]*", text)) <= 750


@pytest.mark.parametrize("text", ["# Nothing", "<!-- a:begin --> <!-- a:end -->" * 2])
def test_a_page_without_its_two_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a:begin"):
        tables.between(text, "a", "fresh")


def test_only_what_is_between_the_markers_changes() -> None:
    text = "x\n<!-- a:begin -->\nold\n<!-- a:end -->\ny"
    drawn = tables.between(text, "a", "new")
    assert drawn == text.replace("old", "new") and tables.between(drawn, "a", "new") == drawn
