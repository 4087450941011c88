"""The glossary's links: each term is a link once in the course, where its prose first uses it.

`python -m tools.glossary` puts them into the lessons and side lessons. Run it after a change of
site/glossary.md or of a lesson's words; a test says when it is due.
"""

import re
from typing import NamedTuple

from nbformat import NotebookNode

from tools.lessons import FOLDER, read, store, tags, taught

GLOSSARY = FOLDER.parent / "site" / "glossary.md"

# Words that mean other things too: their first use as a term is where a lesson sets it in bold.
ORDINARY = {"gradient", "length", "line", "rank"}

NO_PROSE = re.compile(
    r"^ *(```|~~~).*?^ *\1|^ {4}.*?$|^#+ .*?$"  # blocks of code, headings
    r"|^- \[\d\d .*?$"  # a line of the list of lessons
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>\n]*>|`[^`\n]*`",  # links, HTML, code in a line
    re.M | re.S,
)
ANNOUNCES = re.compile(
    r"^# .*\d\d · |^- \*\*Time:|^## (?:Claims settled|More|Next|Further reading)", re.M
)
TO_TERM = re.compile(r"\[([^\]]*)\]\((?:\.\./)+site/glossary\.md#([^)]*)\)")


class Term(NamedTuple):
    """A heading of the glossary and the text below it."""

    name: str
    text: str

    @property
    def slug(self) -> str:
        """The anchor that GitHub and the site give to the heading."""
        return re.sub(r"[^\w -]", "", self.name.lower()).replace(" ", "-")

    @property
    def forms(self) -> list[str]:
        """All that a lesson may call it: its name, and what stands after "Also"."""
        also = re.search(r"\*Also: ([^*]+)\.\*", self.text)
        return [self.name, *(also[1].split(", ") if also else [])]


class Use(NamedTuple):
    """Where a term is first used: the numbers of lesson and cell, and from where to where."""

    lesson: int
    cell: int
    start: int
    end: int


def terms(page: str) -> list[Term]:
    """The glossary's terms in the order in which they stand."""
    parts = re.split(r"^### (.+)\n", page, flags=re.M)
    texts = [text.split("\n## ")[0].strip() for text in parts[2::2]]
    return [Term(*pair) for pair in zip(parts[1::2], texts, strict=True)]


def unlinked(source: str) -> str:
    """`source` without links to the glossary's terms."""
    return TO_TERM.sub(r"\1", source)


def masked(source: str, kept: set[str]) -> str:
    """`source` with all but prose, and the code in `kept`, blanked out."""
    return NO_PROSE.sub(lambda m: m[0] if m[0] in kept else " " * len(m[0]), source)


def pattern(form: str, ordinary: bool) -> str:
    """`form` as whole words, plural or not, in bold or not; a form in code as it is."""
    if form[0] == "`":
        return re.escape(form)
    end = "(?:y|ies)" if form[-1] == "y" else form[-1] + "(?:s|es)?"
    word = f"[{form[0].upper()}{form[0].lower()}]{re.escape(form[1:-1])}{end}"
    return rf"\*\*{word}\*\*" + ("" if ordinary else f"|{word}")


def first_uses(glossary: list[Term], lessons: list[list[str]]) -> dict[str, Use]:
    """By slug each term's first use in `lessons`; "sparse gradient" is no use of "gradient"."""
    named = {form: term for term in glossary for form in term.forms}
    forms = sorted(named, key=len, reverse=True)
    either = "|".join(f"({pattern(form, named[form].name in ORDINARY)})" for form in forms)
    any_form = re.compile(rf"(?<![\w.`-])(?:{either})(?![\w`-])")
    found: dict[str, Use] = {}
    for lesson, cells in enumerate(lessons):
        for cell, source in enumerate(cells):
            for match in any_form.finditer(masked(source, {f for f in forms if f[0] == "`"})):
                slug = named[forms[match.lastindex - 1]].slug
                found.setdefault(slug, Use(lesson, cell, *match.span()))
    return found


def linked(
    glossary: list[Term], lessons: list[list[str]], ups: list[str] | None = None
) -> list[list[str]]:
    """`lessons`, their cells' sources, with a link at each term's first use and at no other.

    `ups` holds for each lesson the way from its folder to the repository's root; default "../".
    """
    lessons = [[unlinked(source) for source in cells] for cells in lessons]
    uses = sorted(first_uses(glossary, lessons).items(), key=lambda item: item[1], reverse=True)
    for slug, (lesson, cell, start, end) in uses:  # the last first: the other places hold
        source = lessons[lesson][cell]
        up = ups[lesson] if ups else "../"
        link = f"[{source[start:end]}]({up}site/glossary.md#{slug})"
        lessons[lesson][cell] = source[:start] + link + source[end:]
    return lessons


def prose(nb: NotebookNode) -> list[NotebookNode]:
    """Markdown cells, without solutions and those that only announce (title, card, More, Next)."""
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown"]
    return [c for c in cells if "solution" not in tags(c) and not ANNOUNCES.search(c.source)]


def sources(books: list[NotebookNode]) -> list[list[str]]:
    return [[cell.source for cell in prose(nb)] for nb in books]


def stored() -> tuple[list[NotebookNode], list[list[str]]]:
    """The lessons and side lessons as stored, and their prose as it should be linked."""
    books = [read(path) for path in taught()]
    ups = ["../" * len(path.relative_to(FOLDER).parts) for path in taught()]
    return books, linked(terms(GLOSSARY.read_text("utf-8")), sources(books), ups)


def relink() -> list[str]:
    """Put the links into the stored lessons; the names of those that changed."""
    books, wanted = stored()
    for nb, texts in zip(books, wanted, strict=True):
        for cell, text in zip(prose(nb), texts, strict=True):
            cell.source = text
    return [path.name for path, nb in zip(taught(), books, strict=True) if store(nb, path)]


if __name__ == "__main__":
    print(*relink() or ["every term is linked already"], sep="\n")
