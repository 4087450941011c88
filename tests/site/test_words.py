"""Glossary and cheat sheet: every link leads to its cell, every term is a link at its first use."""

import inspect
import re
from pathlib import Path

import pytest
from nbformat import NotebookNode
from torch import nn

from tools.glossary import GLOSSARY, TO_TERM, Term, linked, prose, stored, terms
from tools.lessons import FOLDER, asked_paths, label, read, taught

SITE = FOLDER.parent / "site"
SHEET = SITE / "cheat_sheet.md"
TO_CELL = re.compile(r"\[([^\]]*)\]\(\.\./notebooks/([^)#]+)#([^)]+)\)")


def name(path: Path) -> str:
    """A notebook's path as links in site/ name it, below notebooks/."""
    return path.relative_to(FOLDER).as_posix()


def places(nb: NotebookNode, number: str) -> dict[str, str]:
    """By each cell's id the words by which a page names its place: "04 §1", "04 errors"."""
    found, here = {}, number
    for cell in nb.cells:
        headings = re.findall(r"^## (.+)$", cell.source, re.M)
        for words in headings if cell.cell_type == "markdown" else []:
            section = re.sub(r"^(\d+)\..*", r"§\1", words)
            here = f"{number} {section.replace('When it goes wrong', 'errors')}"
        found[cell.id] = here
    return found


@pytest.fixture(scope="module")
def books() -> list[NotebookNode]:
    return [read(path) for path in taught()]


@pytest.fixture(scope="module")
def glossary() -> list[Term]:
    return terms(GLOSSARY.read_text("utf-8"))


def ids(path: Path) -> list[str]:
    return [cell.id for cell in read(path).cells]


def rows(page: str) -> list[list[str]]:
    """The cells of each line of a page's tables, without their heads."""
    lines = re.findall(r"^\|.+\|$", page, re.M)
    rules = [i for i, line in enumerate(lines) if line.startswith("|:")]
    kept = [line for i, line in enumerate(lines) if i not in rules and i + 1 not in rules]
    return [[part.strip() for part in line.strip("|").split(" | ")] for line in kept]


def test_the_glossary_is_sorted_and_names_nothing_twice(glossary: list[Term]) -> None:
    names = [term.name.strip("`").casefold() for term in glossary]
    assert names == sorted(names)
    forms = [form.casefold() for term in glossary for form in term.forms]
    assert {form for form in forms if forms.count(form) > 1} == set()
    assert len({term.slug for term in glossary}) == len(glossary) >= 60


def test_each_term_stands_below_its_letter(glossary: list[Term]) -> None:
    page = re.split(r"^## (.)\n", GLOSSARY.read_text("utf-8"), flags=re.M)[1:]
    assert page[::2] == sorted({term.name.strip("`")[0].upper() for term in glossary})
    for letter, part in zip(page[::2], page[1::2], strict=True):
        assert {term.name.strip("`")[0].upper() for term in terms(part)} == {letter}


@pytest.mark.parametrize("page", [GLOSSARY, SHEET], ids=lambda page: page.stem)
def test_each_link_leads_to_a_cell_at_the_place_that_it_names(
    page: Path, books: list[NotebookNode]
) -> None:
    pairs = zip(taught(), books, strict=True)
    found = {name(path): places(nb, label(path)) for path, nb in pairs}
    found |= {name(path): dict.fromkeys(ids(path), "asked") for path in asked_paths()}
    links = TO_CELL.findall(page.read_text("utf-8"))
    wrong = [(*link, found.get(link[1], {}).get(link[2], "no such cell")) for link in links]
    assert [link for link in wrong if link[0] != link[3]] == []
    others = page.read_text("utf-8").count("../notebooks/") - len(links)
    assert len(links) > 60 and others == (page == SHEET)  # the one to the index of questions


def test_each_term_and_line_has_its_place(
    glossary: list[Term],
) -> None:
    sheet = rows(SHEET.read_text("utf-8"))
    assert [term.name for term in glossary if len(TO_CELL.findall(term.text)) != 1] == []
    assert [line for line in sheet if len(line) != 2 or not TO_CELL.search(line[1])] == []
    assert 60 < len(sheet) <= 90  # it is one page


def test_each_term_leads_to_a_cell_that_uses_it(
    glossary: list[Term], books: list[NotebookNode]
) -> None:
    paths = [name(path) for path in taught()]
    cells = {(path, c.id): c for path, nb in zip(paths, books, strict=True) for c in nb.cells}
    wrong = []
    for term in glossary:
        _, path, cell = TO_CELL.search(term.text).groups()
        words = cells[path, cell].source.casefold()
        if not any(form.strip("`").casefold().rstrip("y") in words for form in term.forms):
            wrong.append((term.name, cell))
    assert wrong == []


def test_the_sheet_names_every_argument_of_the_constructor() -> None:
    """A new PyTorch with a new option fails here; names that begin with _ are PyTorch's own."""
    code = " ".join(re.findall(r"`[^`]+`", SHEET.read_text("utf-8")))
    names = [name for name in inspect.signature(nn.Embedding).parameters if name[0] != "_"]
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_each_error_is_quoted_as_its_cell_shows_it(books: list[NotebookNode]) -> None:
    shown = {}
    for path, nb in zip(taught(), books, strict=True):
        for cell in nb.cells:
            outs = cell.get("outputs", [])
            texts = [
                str(text)
                for out in outs
                for text in [out.get("text"), *out.get("data", {}).values()]
            ]
            shown[name(path), cell.id] = "\n".join(texts)
    errors = rows(SHEET.read_text("utf-8").partition("## Errors")[2])
    quoted = [(message.strip("`"), TO_CELL.findall(remedy)[-1][1:]) for message, remedy in errors]
    assert [message for message, place in quoted if message not in shown[place]] == []
    assert len(quoted) > 10


def test_each_term_is_used_and_linked_where_it_is_first_used(
    glossary: list[Term],
) -> None:
    books, wanted = stored()
    slugs = {slug for lesson in wanted for cell in lesson for _, slug in TO_TERM.findall(cell)}
    assert [term.name for term in glossary if term.slug not in slugs] == []
    changed = [
        f"{path.name}: {cell.id}"
        for path, nb, texts in zip(taught(), books, wanted, strict=True)
        for cell, text in zip(prose(nb), texts, strict=True)
        if cell.source != text
    ]
    assert changed == [], "run `python -m tools.glossary`"


def test_nothing_links_to_a_term_that_is_not_there(
    glossary: list[Term], books: list[NotebookNode]
) -> None:
    slugs = {term.slug for term in glossary}
    texts = [page.read_text("utf-8") for page in SITE.rglob("*.md")]
    texts += [cell.source for nb in books for cell in nb.cells]
    links = [slug for text in texts for slug in re.findall(r"glossary\.md#([^)\s]+)\)", text)]
    assert [slug for slug in links if slug not in slugs] == []


PAGE = """# Glossary

## B

### bag

Ids. *Also: sack, `bag_of`.*

## R

### row

Numbers.

### row-wise cut

Halves.

## T

### tally

A count.
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The rows, the row.", "The [rows](R), the row."),
        ("A **row** here.", "A [**row**](R) here."),
        ("**To remember: a row.**", "**To remember: a [row](R).**"),
        ("# A row\n\n`row`, [row](x), row-id, arrow.row, <row>", None),
        ("```python\nrow\n```\n\n    row\n\n- [01 Rows](x): rows", None),
        ("A row-wise cut, row.", "A [row-wise cut](row-wise-cut), [row](R)."),
        ("Tallies, rows.", "[Tallies](tally), [rows](R)."),
        ("A sack, `bag_of`.", "A [sack](bag), `bag_of`."),
        ("`bag_of` is a bag.", "[`bag_of`](bag) is a bag."),
        ("Row-wise cut, row.", "[Row-wise cut](row-wise-cut), [row](R)."),
        ("row [row](R), [**row**](R)", "[row](R) row, **row**"),
    ],
)
def test_first_uses_are_linked(before: str, after: str | None) -> None:
    def full(text: str) -> str:
        text = text.replace("(R)", "(row)")
        return re.sub(r"\((row|row-wise-cut|tally|bag)\)", r"(../site/glossary.md#\1)", text)

    found = linked(terms(PAGE), [[full(before)], ["again, row-wise cut"]])
    assert found[0] == [full(after or before)]
    assert linked(terms(PAGE), found) == found
