"""What every lesson keeps to: each rule takes a notebook and its path and yields complaints.

A complaint is one short line that names the place. test_notebooks.py runs all RULES, and those of
sitting_rules.py, on all lessons and side lessons, and breaks a good notebook once per rule to show
that the rule can fail.
"""

import ast
import base64
import re
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from nbformat import NotebookNode

from tools import budget
from tools.lessons import (
    LESSONS,
    digests,
    exercises,
    is_side,
    normalise,
    read,
    side_paths,
    stub_check,
    tags,
)

Rule = Callable[[NotebookNode, Path], Iterator[str]]

TAGS = re.compile(r"exercise|solution|measured|hide-input|nbval-ignore-output|error|claim-C\d\d")
# After the numbered sections; a lesson without a claim, or without a side lesson, leaves it out.
CLOSING = ["When it goes wrong", "Claims settled", "In short", "More", "Next", "Further reading"]
MAY_LACK = {"Claims settled", "More"}
SIDE_CLOSING = ["Claims settled", "In short", "Next"]
LEAKS = re.compile(
    r"(?<![\w.:/<])/(?:[\w.+-]+/){2,}"  # two folders deep from the root, not in an address
    r"|(?<![\w.:/<])/(?:home|Users|root|tmp|work|private)/"
    r"|\b[A-Z]:\\"
    r"|site-packages|ipykernel_\d+"
    r"|\b0x[0-9a-fA-F]{8,}"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
)
HYPE = re.compile(r"\b(simply|obviously|clearly|of course|amazing|magic)\b", re.I)
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f]")
FENCED = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?\)")
BULLET = re.compile(r"^ *[-*] ", re.M)


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def prose(cell: NotebookNode) -> str:
    """A markdown cell's source without its fenced code; nothing for a code cell."""
    return FENCED.sub("", cell.source) if cell.cell_type == "markdown" else ""


def all_prose(nb: NotebookNode) -> str:
    return "\n\n".join(prose(cell) for cell in nb.cells)


def headings(prose_text: str) -> list[tuple[int, str]]:
    """(level, words) of each heading, its markup for code and emphasis removed."""
    found = re.findall(r"^(#{1,6}) +(.+?)[ #]*$", prose_text, re.M)
    return [(len(marks), re.sub(r"[`*]", "", words)) for marks, words in found]


def sections(nb: NotebookNode) -> dict[str, str]:
    """Each second-level heading with the prose below it."""
    parts = re.split(r"^## +(.+?) *$", all_prose(nb), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def number(path: Path) -> int:
    """The lesson's number, from its file's name."""
    return int(path.name[:2])


def outputs(nb: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    for cell in code_cells(nb):
        for out in cell.outputs:
            yield cell, out


def shown(out: NotebookNode) -> str:
    """The text of an output, pictures' bytes left out, their alt text not."""
    parts = [out.get("text", ""), *out.get("traceback", [])]
    parts += [
        str(v) for k, v in out.get("data", {}).items() if k not in ("image/png", "image/jpeg")
    ]
    return "\n".join([*parts, str(out.get("metadata", {}))])


def executed(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A cell without a count makes strict nbval vacuous; without outputs there is nothing held."""
    cells = code_cells(nb)
    for expected, cell in enumerate(cells, start=1):
        if not cell.source.strip():
            yield f"{cell.id}: empty code cell"
        if cell.execution_count != expected:
            yield f"{cell.id}: execution_count {cell.execution_count}, expected {expected}"
    silent = sum(not cell.outputs for cell in cells)
    if silent > 0.4 * len(cells):
        yield f"{silent} of {len(cells)} code cells show nothing; at most 40% may"


def no_errors(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A warning or a traceback in a lesson is noise, and holds paths that differ by machine."""
    for cell, out in outputs(nb):
        if out.output_type == "error":
            yield f"{cell.id}: stores an error, {out.ename}"
        if out.get("name") == "stderr":
            yield f"{cell.id}: stores stderr, {out.text[:60]!r}"


def figures_described(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A picture that a screen reader cannot read is missing for its reader; a big one is slow."""
    for cell, out in outputs(nb):
        if "image/png" not in out.get("data", {}):
            continue
        alt = out.metadata.get("image/png", {}).get("alt", "")
        if len(alt) < 40 or re.match(r"(?i)\s*(figure|image)", alt):
            yield f"{cell.id}: alt text {alt!r}: say in 40 characters or more what is seen"
        size = len(base64.b64decode(out.data["image/png"])) / 1000
        if size >= 100:
            yield f"{cell.id}: picture of {size:.0f} kB, keep it under 100"


def no_leaks(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Paths, addresses and times belong to one machine and one run, and differ on the next."""
    for cell in nb.cells:
        for text in [cell.source, *map(shown, cell.get("outputs", []))]:
            if leak := LEAKS.search(text):
                yield f"{cell.id}: shows {leak[0]!r}"


def normal(nb: NotebookNode, path: Path) -> Iterator[str]:
    """One stored form: a diff shows what changed. `make lessons` writes it."""
    wanted = normalise(nb)
    for cell, want in zip(nb.cells, wanted.cells, strict=True):
        for key in sorted({*cell, *want}):
            if cell.get(key) != want.get(key):
                yield f"{want.id}: {key} not normalised; run make lessons"
    for key in ("metadata", "nbformat", "nbformat_minor"):
        if nb[key] != wanted[key]:
            yield f"notebook: {key} not normalised; run make lessons"
    for i, digest in digests(nb).items():
        if nb.cells[i].metadata.get("digest") != digest:
            yield f"{nb.cells[i].id}: measured by other code than stands here; run make lessons"


def known_tags(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A misspelt tag does nothing, silently; a measured cell's text would be compared."""
    for cell in nb.cells:
        for tag in tags(cell):
            if not TAGS.fullmatch(tag):
                yield f"{cell.id}: unknown tag {tag!r}"
    for cell, out in outputs(nb):
        data = out.get("data", {})
        words = data.get("text/html", "").startswith("<details><summary>The figure in words")
        if "measured" in tags(cell) and not (words or "image/png" in data):
            yield f"{cell.id}: measured, and shows more than a picture and its words"


def opening(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A reader decides in a minute: what is asked, how long, what first, what for."""
    lines = prose(nb.cells[0]).split("\n\n## ")[0].splitlines()
    title = f"# {'More on ' if is_side(path) else ''}{path.name[:2]} · "
    if not re.fullmatch(rf"{title}\S.*", lines[0] if lines else ""):
        yield f"the first cell starts with '{title}Title'"
    question = " ".join("\n".join(lines[1:]).strip().split("\n\n")[0].split())
    if not question.endswith("?") or re.search(r"[.!?] ", question):
        yield f"below the title stands one question, not {question!r}"
    card = "\n".join(map(prose, nb.cells[:2]))
    for words in ("minutes", "before", "After this lesson you can"):
        if words.lower() not in card.lower():
            yield f"the card lacks {words!r}"
    verbs = len(BULLET.findall(card.partition("After this lesson you can")[2]))
    if not 3 <= verbs <= 5:
        yield f"the card says {verbs} things you can do, not three to five"
    first = next((c for c in nb.cells if c.cell_type == "code"), None)
    if first is None or "import " not in first.source:
        yield "the first code cell is the set-up cell, with the imports"


def skeleton(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The same places in each lesson, so that a reader finds them without looking."""
    found = headings(all_prose(nb))
    levels = [level for level, _ in found]
    if levels.count(1) != 1:
        yield f"{levels.count(1)} headings of level 1"
    for (above, _), (level, words) in pairwise(found):
        if level > above + 1:
            yield f"{words!r}: level {level} below level {above}"
    second = [words for level, words in found if level == 2]
    if number(path) == 0:
        if "Next" not in second:
            yield "no section 'Next'"
        return
    numbered = [words for words in second if re.match(r"\d+\. ", words)]
    if [int(words.split(".")[0]) for words in numbered] != list(range(1, len(numbered) + 1)):
        yield f"sections not numbered 1, 2, ...: {numbered}"
    closing = SIDE_CLOSING if is_side(path) else CLOSING
    wanted = [words for words in closing if words in second or words not in MAY_LACK]
    if not numbered or second != numbered + wanted:
        yield f"sections are numbered ones, then {closing}; here {second}"
    bullets = len(BULLET.findall(sections(nb).get("In short", "")))
    if not 3 <= bullets <= 6:
        yield f"'In short' has {bullets} bullets, not three to six"
    before = [c.cell_type for c in nb.cells[: first_section(nb)]].count("code")
    if before != 1:
        yield f"{before} code cells before section 1; one sets up"


def first_section(nb: NotebookNode) -> int:
    """The index of the cell with the first numbered heading, or the number of cells."""
    starts = (i for i, c in enumerate(nb.cells) if re.search(r"^## \d+\. ", prose(c), re.M))
    return next(starts, len(nb.cells))


def plain(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Short cells can be read at once; hype says 'easy' to a reader for whom it is not."""
    for cell in nb.cells:
        lines = sum(bool(line.strip()) for line in cell.source.splitlines())
        if cell.cell_type == "code" and lines > 15 and not budget.folded(cell):
            yield f"{cell.id}: {lines} lines of code, at most 15"
        if hype := HYPE.search(re.sub(r"`[^`]*`", "", prose(cell))):
            yield f"{cell.id}: {hype[0]!r}"
        if emoji := EMOJI.search(cell.source):
            yield f"{cell.id}: {emoji[0]!r}"


def exercises_whole(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A card to choose by, a stub that Run All passes unsolved, a check, a solution."""
    try:
        found = exercises(nb)
    except ValueError as error:
        yield str(error)
        return
    if not 1 <= len(found) <= 5:
        yield f"{len(found)} exercises, not one to five"
    for exercise in found:
        stub, card = nb.cells[exercise.stub], prose(nb.cells[exercise.stub - 1])
        for words in (r"\b(warm-up|core|stretch)\b", r"\d min|minutes: \d", r"move on if"):
            if not re.search(words, card, re.I):
                yield f"{stub.id}: no {words!r} on the card above it"
        try:
            alias, _ = stub_check(stub)
            if alias != "check":
                yield f"{stub.id}: checked by {alias}, not check"
        except ValueError as error:
            yield str(error)
        streams = [out.get("text", "") for out in stub.outputs if out.get("name") == "stdout"]
        if len(stub.outputs) != 1 or not "".join(streams).startswith("Not attempted"):
            yield f"{stub.id}: shows something else than 'Not attempted'"
        below = [c for c in nb.cells[exercise.stub + 1 :] if c.cell_type == "code"]
        read_below = [names_of(tree_of(c))[1] for c in below if "exercise" not in tags(c)]
        for name in sorted(made(exercise.code) & set().union(*read_below)):
            yield f"{stub.id}: a cell below uses {name!r}, which the solution makes"


def tree_of(cell: NotebookNode) -> ast.Module:
    """A code cell's syntax tree; lines for IPython (%, !) are left out."""
    lines = ["pass" if line[:1] in ("%", "!") else line for line in cell.source.split("\n")]
    return ast.parse("\n".join(lines))


def names_of(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The names that this code sets, and those that it reads."""
    sets, reads = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else sets).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            sets.add(node.name)
        elif isinstance(node, ast.arg):
            sets.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            sets.add(node.name)
        elif isinstance(node, ast.alias):
            sets.add((node.asname or node.name).partition(".")[0])
    return sets, reads


def made(code: str) -> set[str]:
    """The names that this code leaves to the cells below it."""
    found = set()
    for part in ast.parse(code).body:
        own = isinstance(part, ast.FunctionDef | ast.ClassDef)
        found |= {part.name} if own else names_of(part)[0]
    return found


def enough_figures(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The mechanism is drawn, not only described."""
    count = sum("image/png" in out.get("data", {}) for _, out in outputs(nb))
    fewest = 0 if number(path) == 0 else 1 if is_side(path) else 2
    if count < fewest:
        yield f"{count} figures, at least {fewest}"


def rhythm(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A paragraph, a few lines of code, what they show: neither a wall of text nor of code."""
    cells = [cell for cell in code_cells(nb) if not budget.folded(cell)]
    if number(path) == 0 or not cells:
        return
    median = statistics.median(
        sum(bool(line.strip()) for line in c.source.splitlines()) for c in cells
    )
    if median > 4:
        yield f"median of {median} code lines, at most 4"
    words = len(re.findall(r"\w+", all_prose(nb))) / len(cells)
    if not 40 <= words <= 130:
        yield f"{words:.0f} words of prose per code cell, 40 to 130"


def broken_links(text: str, folder: Path, here: NotebookNode | None = None) -> Iterator[str]:
    """Each relative link in `text` that leads to no file, or to no heading of a notebook."""
    for link in LINK.findall(re.sub(r"`[^`]*`", "", text)):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        if not (folder / target).exists():
            yield f"link to {link}: no such file"
        elif anchor and (here if not target else target.endswith(".ipynb")):
            nb = read(folder / target) if target else here
            # JupyterLab's own rule: the heading's words, spaces as hyphens, nothing else changed
            if anchor not in [words.replace(" ", "-") for _, words in headings(all_prose(nb))]:
                yield f"link to {link}: no such heading"


def links(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A dead link strands the reader; Next leads on as soon as there is a next lesson."""
    yield from broken_links(all_prose(nb), path.parent, nb)
    text = sections(nb).get("More", "")
    for side in side_paths(path.parent):
        if not is_side(path) and number(side) == number(path) and f"more/{side.name}" not in text:
            yield f"More does not link to {side.name}"
    if is_side(path) or path.stem == LESSONS[-1]:
        return
    following, text = f"{number(path) + 1:02}", sections(nb).get("Next", "")
    for file in path.parent.glob(f"{following}_*.ipynb"):
        if file.name not in LINK.findall(text):
            yield f"Next does not link to {file.name}"
    if not re.search(rf"\b{following}", text):
        yield f"Next does not name lesson {following}"


def predicted(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Who has said what will be printed reads what is printed. One section may do without."""
    without = [
        title
        for title, text in sections(nb).items()
        if re.match(r"\d+\. ", title) and "**Predict**" not in text
    ]
    if number(path) and len(without) > 1:
        yield f"sections without **Predict**: {without}"


def few_ignored(books: list[NotebookNode]) -> Iterator[str]:
    """Over the course: an output that nothing compares can be wrong for a year."""
    cells = [cell for nb in books for cell in code_cells(nb)]
    ignored = sum(bool({"nbval-ignore-output", "nbval-skip"} & set(tags(c))) for c in cells)
    if ignored > 0.03 * len(cells):
        yield f"{ignored} of {len(cells)} code cells have ignored output, at most 3%"


RULES: list[Rule] = [
    executed,
    no_errors,
    figures_described,
    no_leaks,
    normal,
    known_tags,
    opening,
    skeleton,
    plain,
    exercises_whole,
    enough_figures,
    rhythm,
    links,
    predicted,
]
