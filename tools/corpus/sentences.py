"""Sentences of lower-case words, from docstrings.

What is a word: a run of letters and digits that begins with a letter, in lower case. Everything
else separates words, so `row-major` and `padding_idx` are two words each, while `float32`,
`arccos` and `EmbeddingBag` (as embeddingbag) stay whole. Accents are dropped. Two exceptions,
since they read as words: `1d`, `2d` ... (also written 2-D), and negations such as `doesn't`.
"""

import inspect
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tools.corpus import docstrings


class Sentence(NamedTuple):
    """One sentence: the library and the module it documents, and its words in order."""

    library: str
    module: str
    words: tuple[str, ...]


def read(libraries: Sequence[str] = docstrings.LIBRARIES) -> list[Sentence]:
    """Every sentence of three words or more in the documentation of `libraries`.

    They stand in the order of the libraries, then by file name, then as in the source. A sentence
    that a library repeats is kept once, where it first stands.
    """
    found = []
    for library in libraries:
        first: dict[tuple[str, ...], str] = {}  # a sentence's words to its module
        for module, text in docstrings.read(library):
            for words in split(text):
                first.setdefault(words, module)
        found += [Sentence(library, module, words) for words, module in first.items()]
    return found


_DROPPED_BODY = re.compile(  # directives whose body is code, a formula or a picture
    r"\.\. +(?:code|code-block|sourcecode|math|plot|image|figure|testcode|testsetup|testoutput|"
    r"doctest|ipython|literalinclude|autosummary|toctree|table|list-table|csv-table|index|"
    r"include|raw|graphviz|inheritance-diagram|productionlist|rubric|_[^:]*|\[[^\]]*\])(?:::?| |$)"
)
_DIRECTIVE = re.compile(r"\.\. +[\w:+-]+ *::")
_HEAD = re.compile(r"[*`\w][\w.*`, ()]*(?: :(?: |$)|: *$)|:\w+(?: [^:`]+)?: ")
_GOOGLE_HEAD = re.compile(r"[*`]*\w+`*(?: \([^)]*\))?(?:: | -+ )")
_BULLET = re.compile(r"(?:[-*+•]|\(?\w{1,2}[.)]|#\.) +")
_RULE = re.compile(r"[-=~^*#\"'+_.:|`\s<>/\\]+$")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)\s*(?:->.*)?$", re.DOTALL)


def split(text: str) -> list[tuple[str, ...]]:
    """The sentences of a docstring: tuples of three words or more; code and formulas dropped."""
    found = []
    for paragraph in _paragraphs(inspect.cleandoc(text)):
        for sentence in _SENTENCE_END.split(_plain(paragraph)):
            words = tuple(_WORD.findall(sentence))
            if len(words) >= 3 and not _is_code(sentence, words):
                found.append(words)
    return found


def _paragraphs(text: str) -> Iterator[str]:
    """Runs of lines that belong together, in one string each; code and its output left out."""
    lines: list[str] = []
    before = 0  # indentation of the line before
    block: int | None = None  # inside a dropped block: the indentation of the line that opens it
    doctest = table = False
    for line in [*text.split("\n"), ""]:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            doctest = table = False
            yield " ".join(lines)
            lines = []
            continue
        if block is not None and indent > block:
            continue
        block = None
        if doctest or stripped.startswith((">>>", "...  ", "In [", "$ ", "% ")):
            doctest = True
            continue
        if _DROPPED_BODY.match(stripped):
            block = indent
            continue
        if _RULE.match(stripped) or stripped.startswith(("|", "+-", "@", "```")):
            table = "= =" in re.sub(" +", " ", stripped)  # the rule of a table of columns
            yield " ".join(lines)
            lines = []
            continue
        if stripped.startswith("..") and (directive := _DIRECTIVE.match(stripped)):
            stripped = stripped[directive.end() :].strip()
            yield " ".join(lines)
            lines = []
        opens_entry = _HEAD.match(stripped) or _BULLET.match(stripped)
        if opens_entry or _GOOGLE_HEAD.match(stripped) or indent < before or table:
            yield " ".join(lines)
            lines = []
        lines.append(stripped)
        before = indent
        if stripped.endswith("::"):
            block = indent
        if _HEAD.match(stripped) and not stripped.endswith("-"):
            yield " ".join(lines)  # "x : array" is about the type, what follows about the meaning
            lines = []


# Each: a character that the pattern needs (looking for it first halves the time), the pattern,
# what stands in its place.
_INLINE = [
    ("`", re.compile(r":math:`[^`]*`"), " "),
    ("$", re.compile(r"\$\$?[^$]+\$\$?"), " "),
    ("\\", re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]"), " "),
    ("@", re.compile(r"\S+@\S+\.\w+"), " "),
    ("`", re.compile(r":[\w:+-]+:`[~!.]?([^`<]+?)(?: *<[^`]*>)?`"), r" \1 "),  # :class:`a <b>`
    ("<", re.compile(r"`([^`<]+?) *<[^`]*>`_*"), r" \1 "),  # `text <target>`_
    ("/", re.compile(r"<?\b(?:https?|ftp)://[^\s>`]+>?"), " "),
    ("]", re.compile(r"\[[#*\w]{1,12}\]_"), " "),  # a footnote
    ("|", re.compile(r"\|\w+\|_?"), " "),  # a substitution
    ("%", re.compile(r"%\(\w+\)[sdr]"), " "),
    ("{", re.compile(r"\{\w*\}"), " "),
    ("`", re.compile(r"``?((?:[^`]|(?<=\w)`(?=\w))+)``?"), lambda match: _code(match[1])),
    ("\\", re.compile(r"\\[a-zA-Z]+"), " "),  # \alpha outside a formula
    (".", re.compile(r"\b(?:e\.g|i\.e|et al|cf|resp|w\.r\.t|vs|etc|approx)\.(?= *\S)", re.I), " "),
    ("-", re.compile(r"\b(\d|[nN])-[dD]\b"), r" \1d "),
]
_CODE = re.compile(r"[\w.]+(?:\(\))?|\w+ ?= ?[\w.'\"-]+|[\"'][\w +-]*[\"']")
_SENTENCE_END = re.compile(r"[.!?][\"')\]*]*(?:\s+|$)|(?<=\w)[;]\s|\s--+\s")
_WORD = re.compile(r"(?<![a-z0-9])(?:[a-z]+n't|[1-9n]d|[a-z][a-z0-9]*)(?![a-z0-9])")


def _code(text: str) -> str:
    """Inline code: a name, `name=value` or 'a string' reads as words, an expression does not."""
    return f" {text} " if _CODE.fullmatch(text.strip()) else " "


def _plain(paragraph: str) -> str:
    """A paragraph in lower case without markup, accents and formulas; a signature becomes ''."""
    if _SIGNATURE.match(paragraph):
        return ""
    for needed, pattern, replacement in _INLINE:
        if needed in paragraph:
            paragraph = pattern.sub(replacement, paragraph)
    if not paragraph.isascii():
        paragraph = paragraph.replace("\u2019", "'")
        letters = unicodedata.normalize("NFKD", paragraph)
        paragraph = "".join(letter for letter in letters if not unicodedata.combining(letter))
    paragraph = paragraph.lower()
    return re.sub(r"'(?:s|re|ve|ll|d|m)\b", "", paragraph) if "'" in paragraph else paragraph


def _is_code(sentence: str, words: tuple[str, ...]) -> bool:
    """Whether a sentence has as many operators and brackets as words: unmarked code."""
    return len(re.findall(r"[=(){}\[\]<>^*/+|_&]", sentence)) >= len(words)
