"""Slides of a lesson, made by rules from the lesson's own cells.

These get a slide: the title with its question, each section's heading with its first Predict, the
code after a Predict with what it prints, each figure, each sentence to remember, each exercise's
card and its stub. The prose between them becomes the speaker's notes.

`live` makes a notebook to run in JupyterLab with jupyterlab-rise: no output shows before its cell
is run. `page` makes one file of HTML, with reveal.js and the outputs in it: it needs no network.
"""

import copy
import functools
import re
from importlib.resources import files
from pathlib import Path

from jinja2 import FileSystemLoader
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pygments.formatters import HtmlFormatter

from tools.lessons import tags

TEMPLATES = Path(__file__).parent / "templates"
# Sections that are for reading alone: no slides, no notes.
SILENT = ("## When it goes wrong", "## Claims settled", "## Next", "## Further reading")
# What the last row of a room can read: so many lines on a slide, of so many characters. A slide
# with a line longer than NARROW gets the smaller of two sizes.
LINES, WIDTH, NARROW = 15, 100, 82
# Where a cell stands, in the words of nbconvert and jupyterlab-rise.
SLIDE, BELOW, SAME, NOTES, SKIP = "slide", "subslide", "-", "notes", "skip"
FENCE = re.compile(r" *(```|~~~)")
# Code that draws: the room sees the figure, and not how it is made.
DRAWS = re.compile(r"\b(ax|axes|fig|figures)\b")
# A line of a list, a quotation or a table: it belongs to the one above, even after a blank line.
PART = re.compile(r"[-*] |\d+\. |[>| ]")
# The metadata that jupyterlab-rise reads. Its other themes load fonts from a network.
RISE = {"theme": "white", "transition": "none", "start_slideshow_at": "beginning", "scroll": True}


def blank(nb: NotebookNode) -> NotebookNode:
    """A copy as if nobody had run it: no outputs, no execution counts."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        cell.metadata.pop("digest", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def blocks(source: str) -> list[str]:
    """Markdown, cut at blank lines. Code blocks, lists, quotations and tables stay whole."""
    pieces: list[list[str]] = [[]]
    fenced = False
    for line in source.split("\n"):
        if FENCE.match(line):
            fenced = not fenced
        starts = pieces[-1] and not pieces[-1][-1]
        starts = starts and (pieces[-1][0].startswith("#") or not PART.match(line))
        if line and not fenced and starts and not FENCE.match(line):
            pieces.append([])
        pieces[-1].append(line)
    return [text for piece in pieces if (text := "\n".join(piece).strip())]


def _place(cell: NotebookNode, kind: str, *looks: str) -> NotebookNode:
    """Note in a cell where it stands; `looks` become data- attributes of its slide, for the CSS."""
    data = {"data": dict.fromkeys(looks, "true")} if looks else {}
    cell.metadata["slideshow"] = {"slide_type": kind, **data}
    return cell


def _words(cell: NotebookNode, silent: bool) -> tuple[list[NotebookNode], bool]:
    """A markdown cell cut into slides and notes; whether it is, and so what follows, silent."""
    pieces = [cell.source] if cell.source.startswith("### ") else blocks(cell.source)
    made, headed = [], False  # headed: the last slide holds a section's heading and nothing else
    for number, text in enumerate(pieces):
        head, kind, looks = text.startswith(("# ", "## ")), NOTES, []
        if head:
            silent = text.startswith(SILENT)
        size = len(cell.source if head else text)
        size = ["longer"] * (size > 760) or ["long"] * (size > 420)
        if head:
            kind, looks = SLIDE, size if text == "## In short" else []
        elif pieces[0].startswith(("# ", "## In short")) or (headed and text.startswith("**Pre")):
            kind = SAME
        elif text.startswith(("### ", "**Predict**")) or "**After this lesson you can**" in text:
            kind, looks = BELOW, size
        elif text.startswith("|"):
            kind, looks = BELOW, ["longer"]
        elif text.startswith("**To remember"):
            kind, looks = BELOW, ["remember"]
        headed = kind == SLIDE or (headed and kind == NOTES)
        piece = new_markdown_cell(text, id=f"{cell.id[:60]}-{number}")
        made.append(_place(piece, SKIP if silent else kind, *looks))
    return made, silent


def _wide(lines: list[str]) -> list[str]:
    """The look of a slide with these lines of code, if they need one."""
    return ["wide"] * any(len(line) > NARROW for line in lines)


def _printed(cell: NotebookNode) -> str | None:
    """What a cell prints and returns, as text; None if it shows something else, or an error."""
    parts = []
    for out in cell.outputs:
        data = out.get("data", {})
        if set(data) - {"text/plain"} or out.output_type == "error":
            return None
        parts.append(out.get("text") or data.get("text/plain", ""))
    return "\n".join(part.rstrip("\n") for part in parts)


def spoken(nb: NotebookNode) -> NotebookNode:
    """A copy of the lesson, with its outputs, cut into slides; solutions are left out.

    `room` is the number of lines that are still free on the slide.
    """
    nb, cells = copy.deepcopy(nb), []
    silent, asked, room = False, False, 0
    for cell in nb.cells:
        if "solution" in tags(cell):
            continue
        if cell.cell_type == "markdown":
            words, silent = _words(cell, silent)
            asked, room = any("**Predict**" in piece.source for piece in words), 0
            cells += words
            continue
        cells.append(cell)
        pictures = [out for out in cell.outputs if "image/png" in out.get("data", {})]
        text, lines = _printed(cell), cell.source.split("\n")
        if silent:
            _place(cell, SKIP)
        elif pictures:
            cell.outputs, room = pictures, 0
            _place(cell, BELOW, "figure")
        elif "exercise" in tags(cell) and len(lines) <= LINES:
            cell.outputs, room = [], 0
            _place(cell, BELOW, *_wide(lines))
        elif (
            (asked or cell.source.startswith("class "))  # which later slides may use
            and text is not None
            and len(lines) <= LINES
            and not DRAWS.search(cell.source)
        ):
            answer = text.split("\n") if text else []
            if len(lines) + len(answer) > LINES or any(len(line) > WIDTH for line in answer):
                cell.outputs, answer = [], []
            needed = len(lines) + len(answer) + 1
            _place(cell, SAME if needed <= room else BELOW, *_wide(lines + answer))
            room = (room if needed <= room else LINES + 1) - needed
        else:
            _place(cell, SKIP)
    nb.cells = cells
    return nb


def _is_figure(cell: NotebookNode) -> bool:
    return "figure" in cell.metadata["slideshow"].get("data", {})


def live(nb: NotebookNode) -> NotebookNode:
    """The slides as a notebook for jupyterlab-rise, without outputs.

    It runs all code in the lesson's order: a code cell that gets no slide stands folded on the
    slide before it, where Shift + Enter runs it. Only the silent sections at the end are left out.
    """
    nb = blank(spoken(nb))
    nb.metadata["rise"] = RISE
    end = max(i for i, c in enumerate(nb.cells) if c.metadata["slideshow"]["slide_type"] != SKIP)
    for cell in nb.cells[: end + 1]:
        if cell.cell_type == "code" and cell.metadata["slideshow"]["slide_type"] == SKIP:
            _place(cell, SAME)
            cell.metadata["jupyter"] = {"source_hidden": True}
        elif _is_figure(cell):
            cell.metadata["jupyter"] = {"source_hidden": True}
    return nb


@functools.cache
def _exporter() -> SlidesExporter:
    # One for all lessons: each has to compile its templates first.
    return SlidesExporter(
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        template_file="slides.html.j2",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def page(nb: NotebookNode) -> str:
    """The slides as one file of HTML with the outputs; it loads no other file."""
    nb = spoken(nb)
    for cell in nb.cells:
        if _is_figure(cell):
            cell.metadata["transient"] = {"remove_source": True}
    reveal = files("sphinx_revealjs") / "_static" / "revealjs"
    styles = (
        (reveal / "dist" / "reveal.css").read_text("utf-8"),
        HtmlFormatter(style="default").get_style_defs(".highlight"),
        (TEMPLATES / "slides.css").read_text("utf-8"),
    )
    parts = {
        "title": nb.cells[0].source.lstrip("# "),
        "css": "\n".join(styles),
        "reveal": (reveal / "dist" / "reveal.js").read_text("utf-8"),
        "notes": (reveal / "plugin" / "notes" / "notes.js").read_text("utf-8"),
    }
    return _exporter().from_notebook_node(nb, resources={"slides": parts})[0]
