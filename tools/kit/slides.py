"""Slides of a lesson, by rule: what a speaker shows of it, from the lesson's own cells.

A slide for the title with its question, for each section's heading with its first Predict, for a
Predict's code and what it prints, for each figure, for each sentence to remember, for each
exercise's card and stub. The prose between becomes the speaker's notes. `live` gives a notebook to
run in JupyterLab with jupyterlab-rise, in which nothing is given away before it is run; `page` one
file of HTML with reveal.js inside, which needs no network.
"""

import copy
import re
from importlib.resources import files

from jinja2 import DictLoader
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pygments.formatters import HtmlFormatter

from tools.lessons import tags

# Sections that are read, and not spoken of.
SILENT = ("## When it goes wrong", "## Claims settled", "## Next", "## Further reading")
# What fits on a slide at a size that the last row can read: lines, and characters in a line (up to
# NARROW of them in the larger of two sizes).
LINES, WIDTH, NARROW = 15, 100, 82
SLIDE, BELOW, SAME, NOTES, SKIP = "slide", "subslide", "-", "notes", "skip"
FENCE = re.compile(r" *(```|~~~)")
# How drawings are made is not what a talk is about.
DRAWS = re.compile(r"\b(ax|axes|fig|figures)\b")
# A line that goes on with what stands above it, though a blank line may lie between.
PART = re.compile(r"[-*] |\d+\. |[>| ]")

TEMPLATE = r"""
{%- extends 'reveal/base.html.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.slides.title | escape_html }}</title>
<style>{{ resources.slides.css }}</style></head>
{%- endblock header -%}
{%- block body_header -%}<body><main class="reveal"><div class="slides">{%- endblock -%}
{%- block data_png scoped -%}
<img src="data:image/png;base64,{{ output.data['image/png'] | replace('\n', '') }}"
 alt="{{ output.metadata['image/png'].alt | escape_html }}">
{%- endblock -%}
{%- block output_group -%}
{%- if cell.metadata.slideshow.data and cell.metadata.slideshow.data.figure -%}{{ super() }}
{%- else -%}<div class="fragment">{{ super() }}</div>{%- endif -%}
{%- endblock output_group -%}
{%- block input_group -%}
{%- if cell.metadata.slideshow.slide_type == "-" -%}<div class="fragment">{{ super() }}</div>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock input_group -%}
{%- block body_footer -%}</div></main>{%- endblock -%}
{%- block footer -%}
<script>{{ resources.slides.reveal }}</script>
<script>{{ resources.slides.notes }}</script>
<script>
Reveal.initialize({ width: 1280, height: 720, margin: 0.03, hash: true, slideNumber: "c/t",
  transition: "none", plugins: [RevealNotes] });
</script></body></html>
{%- endblock footer -%}
"""
# The colours are those of helpers.figures; contrast is 4.5 or more on white.
CSS = """
html, body { background: #fff; color: #1f2933 }
.reveal { font: 34px/1.4 "Segoe UI", "Helvetica Neue", Helvetica, Arial, sans-serif }
.reveal .slides { text-align: left }
.reveal .slides section { padding: 0 24px; box-sizing: border-box; width: 100% }
.reveal h1, .reveal h2, .reveal h3 { line-height: 1.15; margin: 0 0 .5em; color: #004a77 }
.reveal h1 { font-size: 72px } .reveal h2 { font-size: 56px } .reveal h3 { font-size: 44px }
.reveal p, .reveal ul, .reveal ol { margin: 0 0 .6em } .reveal li { margin-bottom: .2em }
.reveal section[data-long] { font-size: 27px } .reveal section[data-longer] { font-size: 22px }
.reveal pre, .reveal code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace }
.reveal code { font-size: 88%; background: #eef2f6; padding: 0 .15em }
.reveal pre { font-size: 23px; line-height: 1.35; margin: .3em 0; padding: .6em .8em;
  background: #f4f6f8; border-left: 6px solid #0072b2; white-space: pre-wrap }
.reveal section[data-wide] pre { font-size: 19px }
.reveal section[data-remember] { font-size: 44px }
.reveal section[data-remember] p { border-left: 10px solid #0072b2; padding-left: .6em }
.reveal .jp-OutputArea pre { background: none; border-color: #9aa5b1 }
.reveal pre code { font-size: 100%; background: none }
.reveal img { display: block; margin: 0 auto; width: 1180px; height: 640px; object-fit: contain }
.reveal a { color: inherit } .reveal .anchor-link, .reveal .jp-Collapser { display: none }
.reveal table { border-collapse: collapse; font-size: 80% }
.reveal th, .reveal td { border: 1px solid #9aa5b1; padding: .2em .5em; text-align: left }
.reveal .slide-number { font-size: 18px; color: #52606d; background: none;
  right: auto; left: 16px }
"""

# What jupyterlab-rise is told in a notebook's metadata; its other themes ask a network for fonts.
RISE = {"theme": "white", "transition": "none", "start_slideshow_at": "beginning", "scroll": True}
# rise.css beside the notebook is read by jupyterlab-rise.
RISE_CSS = """
.reveal { --jp-code-font-size: 22px; --jp-content-font-size1: 30px }
.reveal .jp-RenderedHTMLCommon { font-size: 30px; line-height: 1.4; text-transform: none }
.reveal .jp-RenderedHTMLCommon h1, .reveal .jp-RenderedHTMLCommon h2,
.reveal .jp-RenderedHTMLCommon h3 { color: #004a77; text-transform: none }
.reveal .jp-RenderedHTMLCommon h1 { font-size: 64px }
.reveal .jp-RenderedHTMLCommon h2 { font-size: 52px }
.reveal .jp-RenderedHTMLCommon h3 { font-size: 40px }
.reveal .jp-Placeholder-content, .reveal .jp-Placeholder-content * { font-size: 14px }
.reveal .jp-OutputArea-output pre { font-size: 22px }
.reveal .jp-RenderedImage img { max-height: 440px; width: auto; max-width: 100% }
"""


def blank(nb: NotebookNode) -> NotebookNode:
    """A copy as if nobody had run it: no outputs, no counts."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        cell.metadata.pop("digest", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def blocks(source: str) -> list[str]:
    """Markdown in pieces: at blank lines, though not within a fence, a list or a quotation."""
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
    """Say where a cell stands; `looks` become data- attributes of its slide, for the CSS."""
    data = {"data": dict.fromkeys(looks, "true")} if looks else {}
    cell.metadata["slideshow"] = {"slide_type": kind, **data}
    return cell


def _words(cell: NotebookNode, silent: bool) -> tuple[list[NotebookNode], bool]:
    """A markdown cell as slides and notes, and whether the sections are silent from here on."""
    pieces = [cell.source] if cell.source.startswith("### ") else blocks(cell.source)
    made, headed = [], False  # headed: the last slide holds a section's heading, and no more
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
    return ["wide"] * any(len(line) > NARROW for line in lines)


def _printed(cell: NotebookNode) -> str | None:
    """What a cell prints and returns, as text; None where it shows something else."""
    parts = []
    for out in cell.outputs:
        data = out.get("data", {})
        if set(data) - {"text/plain"} or out.output_type == "error":
            return None
        parts.append(out.get("text") or data.get("text/plain", ""))
    return "\n".join(part.rstrip("\n") for part in parts)


def spoken(nb: NotebookNode) -> NotebookNode:
    """A copy of the lesson, with its outputs, cut into slides; solutions are left out."""
    cells: list[NotebookNode] = []
    silent, asked, room = False, False, 0
    for cell in copy.deepcopy(nb.cells):
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
    made = copy.copy(nb)
    made.cells = cells
    return made


def _is_figure(cell: NotebookNode) -> bool:
    return "figure" in cell.metadata["slideshow"].get("data", {})


def live(nb: NotebookNode) -> NotebookNode:
    """The slides as a notebook for jupyterlab-rise: no outputs, and every cell in its order.

    A cell that is not shown stands folded on the slide before it, so that Shift + Enter runs it in
    passing. Only the silent sections at the end are left out.
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


def page(nb: NotebookNode) -> str:
    """The slides as one file of HTML, with the outputs, that needs nothing besides itself."""
    nb = spoken(nb)
    for cell in nb.cells:
        if _is_figure(cell):
            cell.metadata["transient"] = {"remove_source": True}
    reveal = files("sphinx_revealjs") / "_static" / "revealjs"
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    parts = {
        "title": nb.cells[0].source.lstrip("# "),
        "css": "\n".join([(reveal / "dist" / "reveal.css").read_text("utf-8"), style, CSS]),
        "reveal": (reveal / "dist" / "reveal.js").read_text("utf-8"),
        "notes": (reveal / "plugin" / "notes" / "notes.js").read_text("utf-8"),
    }
    exporter = SlidesExporter(
        extra_loaders=[DictLoader({"slides.j2": TEMPLATE})],
        template_file="slides.j2",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return exporter.from_notebook_node(nb, resources={"slides": parts})[0]
