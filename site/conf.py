"""How Sphinx builds the site: the executed notebooks and the pages beside this file, offline.

`python -m sphinx -b html -c site . build/site` in the repository's root, which is Sphinx's source
directory so that a link in a notebook or a page means the same file here, on GitHub and in
JupyterLab. Nothing is executed. Four things are ours: every cell carries its id as its anchor,
figures have their alt text, side lessons stand below their lesson, and the front page draws the
lessons and the claims from their sources.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from myst_parser.slugs import github_slugify
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from helpers import claims
from tools import budget, lessons, tables

ROOT = Path(__file__).resolve().parents[1]

project = "nn.Embedding"
author = "The nn.Embedding course contributors"
copyright = f"{author}; code MIT, text and figures CC BY 4.0"
language = "en"

extensions = ["myst_nb"]
root_doc, CLAIMS = "site/index", "site/claims"
LESSONS = [f"notebooks/{name}" for name in lessons.LESSONS]
include_patterns = [
    *(path.relative_to(lessons.FOLDER.parent).as_posix() for path in lessons.every()),
    *("site/**.md", "README.md", "CONTRIBUTING.md", "data/README.md"),
    *("notebooks/more/README.md", "notebooks/asked/README.md"),
]
# Folders that would only be walked through; the rest is held by the patterns above.
exclude_patterns = [".*", "build", "tests", "helpers", "tools", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_render_markdown_format = "gfm"
myst_enable_extensions = ["attrs_block", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # CONTRIBUTING and README may skip a level, as GitHub lets them

linkcheck_anchors = False  # hosts that draw their pages by script have none in the file

html_theme = "sphinx_book_theme"
html_title = "nn.Embedding"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_logo = html_favicon = "static/logo.svg"
html_copy_source = False
html_use_index = False
html_math_renderer = "mathml"
html_theme_options = {
    "home_page_in_toc": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search the course",
    "show_toc_level": 2,
    "toc_title": "On this page",
    "navbar_persistent": [],
    "secondary_sidebar_items": {"**": ["page-toc"], root_doc: []},
    "logo": {"text": "nn.Embedding"},
    "use_download_button": False,
    "use_fullscreen_button": False,
}


def notebook(docname: str) -> Path | None:
    """The notebook that `docname` is made from, if it is made from one."""
    path = ROOT / f"{docname}.ipynb"
    return path if path.is_file() else None


def mark_cells(app: Sphinx, docname: str, source: list[str]) -> None:
    """Before each markdown cell put an element with the cell's id; code cells get theirs below.

    A cell whose id is also the anchor of its own heading has it already.
    """
    if docname == "README":  # its title is the front page's
        source[0] = source[0].replace("# nn.Embedding", "# Run it yourself", 1)
    if docname == CLAIMS:
        source[0] = tables.between(source[0], "claims", "```{claims}\n```")
    if docname == root_doc:
        asked = [
            f"{tables.topic(path)} <../notebooks/asked/{path.stem}>"
            for path in lessons.asked_paths()
        ]
        asked.insert(0, "All of them <../notebooks/asked/README>")
        contents = toctree("Questions people ask", asked)
        source[0] = source[0].replace("{{asked-toctree}}", contents)
    if notebook(docname):
        nb = json.loads(source[0])
        for cell in nb["cells"]:
            text = "".join(cell["source"])
            headings = re.findall(r"^#+ +(.+)$", text, re.M)
            slugs = {make(words) for words in headings for make in (github_slugify, nodes.make_id)}
            if cell["cell_type"] == "markdown" and cell["id"] not in slugs:
                cell["source"] = f'<div id="{cell["id"]}"></div>\n\n{text}'
        if side := side_lessons(app, docname):  # they stand below their lesson in the navigation
            last = nb["cells"][-1]
            last["source"] = f"{''.join(last['source'])}\n\n{toctree('', side)}"
        source[0] = json.dumps(nb)


def side_lessons(app: Sphinx, docname: str) -> list[str]:
    """The side lessons of the lesson that `docname` is, as a toctree in it names them."""
    if docname not in LESSONS:
        return []
    number = Path(docname).name[:3]  # "01_"
    beside = lessons.side_paths(Path(app.srcdir) / "notebooks")
    return [f"more/{p.stem}" for p in beside if p.stem.startswith(number) and p.exists()]


def toctree(caption: str, pages: Sequence[str]) -> str:
    """A part of the table of contents; nothing where it has no pages."""
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    listed = "\n".join(pages)
    return f"```{{toctree}}\n{options}\n{listed}\n```" if pages else ""


def name_cells(app: Sphinx, document: nodes.document) -> None:
    """Make cells linkable by their ids and headings by JupyterLab's anchors; give figures alt text.

    MyST looks up the anchors of a page in its "myst_slugs". A link to one that is not there is a
    warning, and with -W the end of the build; links within a page are made to follow the same way.
    """
    docname = app.env.docname
    for link in document.findall(addnodes.pending_xref):
        if link["reftype"] == "myst" and link["refdomain"] is None and "/" not in link["reftarget"]:
            link["refdomain"], link["reftargetid"] = "doc", link["reftarget"]
            link["reftarget"] = docname
    anchors = app.env.metadata[docname].setdefault("myst_slugs", {})
    for item in document.findall(nodes.list_item):  # the claims
        anchors.update((name, (None, name, "")) for name in item["ids"])
    path = notebook(docname)
    if not path:
        return
    for section in document.findall(nodes.section):
        title = section[0].astext()
        anchors.setdefault(title.replace(" ", "-"), (None, section["ids"][0], title))
    cells = lessons.read(path).cells
    for cell in cells:
        anchors[cell.id] = (None, cell.id, "")
    for node in document.findall(nodes.container):
        if node.get("nb_element") != "cell_code":
            continue
        cell = cells[node["cell_index"]]
        node["ids"].append(cell.id)
        pictures = [out for out in cell.outputs if "image/png" in out.get("data", {})]
        for image, out in zip(node.findall(nodes.image), pictures, strict=True):
            image["alt"] = out.metadata["image/png"]["alt"]
        settled = [tag[6:] for tag in lessons.tags(cell) if tag.startswith("claim-")]
        if settled:
            node += settles(docname, settled)


def settles(docname: str, settled: Sequence[str]) -> nodes.paragraph:
    """A line below a cell that leads to the claims it settles."""
    line = nodes.paragraph("", "Asserts the verdict on ", classes=["remark"])
    for claim in settled:
        link = addnodes.pending_xref(refdomain="doc", reftype="myst", refexplicit=True)
        link["refdoc"], link["reftarget"], link["reftargetid"] = docname, CLAIMS, claim
        line += [link, nodes.Text(" ")]
        link += nodes.inline("", f"claim {claim}")
    return line


class Cards(SphinxDirective):
    """A list drawn from sources: each item some paragraphs, named so that the style finds them."""

    def items(self, parts: Sequence[str], rows: Sequence[Sequence[str]]) -> nodes.Element:
        """A list with an item for each of `rows`, its paragraphs Markdown and named by `parts`."""
        text = "\n".join("- " + "\n\n  ".join(row) + "\n" for row in rows)
        (found,) = self.parse_text_to_nodes(text)
        found["classes"].append(self.name)
        for item in found:
            for paragraph, part in zip(item, parts, strict=True):
                paragraph["classes"].append(part)
        return found


class Lessons(Cards):
    """The lessons: title, the question that each answers, minutes."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for path in lessons.paths():
            self.env.note_dependency(str(path))
            nb = lessons.read(path)
            title, question = tables.opening(nb)
            link = f"[{path.name[:2]} · {title}](../notebooks/{path.name})"
            rows.append((link, question, f"{budget.card(nb)} minutes"))
        return [self.items(("title", "question", "minutes"), rows)]


class Claims(Cards):
    """The claims: claim, verdict, evidence and links to the cells that assert it.

    With the argument `surprising` those few that surprise most, without a choice of verdicts.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        for path in (ROOT / "data" / "claims.csv", *lessons.taught()):
            self.env.note_dependency(str(path))
        cells, every = asserting_cells(), claims.read()
        if self.arguments:
            every = [claim for claim in every if claim.id in tables.SURPRISING]
        rows = []
        for claim in every:
            places = (f"[{place}]({cells[claim.id, place]})" for place in claim.where)
            evidence = f"{claim.evidence} {', '.join(places)}"
            rows.append((claim.verdict, claim.id, claim.claim, evidence))
        found = self.items(("verdict", "number", "claim", "evidence"), rows)
        for item, claim in zip(found, every, strict=True):
            item["classes"].append(claim.verdict)
        if self.arguments:
            return [found]
        for item, claim in zip(found, every, strict=True):
            item["ids"].append(claim.id)
        given = Counter(claim.verdict for claim in every)
        choices = [f'<label><input type="radio" name="verdict" checked>all {len(every)}</label>']
        choices += [
            f'<label class="{verdict}"><input type="radio" name="verdict" value="{verdict}">'
            f"{given[verdict]} {verdict}</label>"
            for verdict in claims.VERDICTS
            if given[verdict]
        ]
        chooser = f'<fieldset class="verdicts"><legend>Show</legend>{"".join(choices)}</fieldset>'
        return [nodes.raw("", chooser, format="html"), found]


def asserting_cells() -> dict[tuple[str, str], str]:
    """For each claim and place, as in ("C01", "03 §1"), the link to the cell tagged with it."""
    found: dict[tuple[str, str], str] = {}
    for path in lessons.taught():
        section = ""
        for cell in lessons.read(path).cells:
            if cell.cell_type == "markdown":
                section = (re.findall(r"^## (\d+)\.", cell.source, re.M) or [section])[-1]
            for tag in lessons.tags(cell):
                if tag.startswith("claim-"):
                    place = (tag.removeprefix("claim-"), f"{lessons.label(path)} §{section}")
                    below = path.relative_to(lessons.FOLDER).as_posix()
                    found.setdefault(place, f"../notebooks/{below}#{cell.id}")
    return found


def write_mathml(display: str) -> Callable:
    """A visitor that writes a formula as MathML, which browsers draw themselves."""

    def visit(translator, node: nodes.Element) -> None:
        formula = latex2mathml.converter.convert(node.astext(), display=display)
        translator.body.append(formula)
        raise nodes.SkipNode

    return visit


def lead_on(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Name the navigation's folds, for screen readers; after a lesson comes the next lesson.

    The theme folds what stands below a page behind a <summary> that holds an arrow alone.
    """
    if draw := context.get("generate_toctree_html"):

        def named(*arguments: object, **options: object) -> object:
            tree = draw(*arguments, **options)
            for fold in tree.select("summary"):
                fold["aria-label"] = f"Side lessons of {fold.find_parent('li').a.get_text()}"
            return tree

        context["generate_toctree_html"] = named
    following = dict(pairwise(LESSONS)).get(page)
    if following in app.env.titles:
        link = app.builder.get_relative_uri(page, following)
        context["next"] = {"link": link, "title": app.env.titles[following].astext()}


def write_entrance(app: Sphinx, error: Exception | None) -> None:
    """index.html at the top of what is built leads to the front page."""
    if not error and app.builder.name == "html":
        page = app.builder.get_target_uri(root_doc)
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html_title}</title>'
            f'<meta http-equiv="refresh" content="0; url={page}">'
            f'<h1><a href="{page}">{html_title}</a></h1></html>\n',
            encoding="utf-8",
        )


# The theme loads the search on every page, so Sphinx takes each for the search page and marks
# nothing of what was searched for.
SHOW_HIT = """
addEventListener("load", () => {
  if (location.pathname.endsWith("/search.html")) return;
  SphinxHighlight.highlightSearchWords();
  if (!location.hash) setTimeout(() => {
    document.querySelector("article span.highlighted")?.scrollIntoView({ block: "center" });
  }, 100);
});
"""


def setup(app: Sphinx) -> dict[str, bool]:
    # What this file makes is made anew when the file has changed.
    app.add_config_value("own_code", Path(__file__).read_text(encoding="utf-8"), "env")
    app.connect("source-read", mark_cells)
    app.connect("doctree-read", name_cells)
    app.connect("html-page-context", lead_on, priority=900)  # after the theme
    app.connect("build-finished", write_entrance)
    app.add_js_file(None, body=SHOW_HIT, priority=900)
    app.add_directive("lessons", Lessons)
    app.add_directive("claims", Claims)
    app.add_html_math_renderer(
        "mathml", (write_mathml("inline"), None), (write_mathml("block"), None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
