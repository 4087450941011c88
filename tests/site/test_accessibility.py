"""Axe-core finds nothing on the built site that would keep a reader out, in light or in dark.

Its rules for WCAG 2.2 A and AA, and its best practice, headings in order among it. `make test`
looks at `SAMPLE`, a page of each kind; `make browser`, which sets COURSE_BROWSER=required as CI
does, at every page, which takes minutes. Helpers' figures are held to AA's contrast too.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import axe_playwright_python
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from playwright.sync_api import Browser, Page

from helpers import claims, figures

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
COLOURS = ["color-contrast", "link-in-text-block"]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SAMPLE = (
    "site/index",
    "site/claims",
    "site/cheat_sheet",
    "site/instructor/00_start_here",
    "notebooks/more/01_equal_rows",
    "notebooks/asked/saving_tying_export",
    "search",
)
# What the theme does, and why it stays; nothing of ours stands here.
EXCUSED = {
    "region": "The theme's logo stands outside the landmarks; all that is read stands inside.",
}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened.set_default_timeout(120_000)
    yield opened
    opened.close()


def violations(page: Page, rules: list[str], without: Iterable[str] = ()) -> list[str]:
    """What axe says of the page, a line for each element; what is folded is opened before."""
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    lines = page.evaluate(
        """([runOnly, rules]) => axe.run({runOnly, rules, resultTypes: ["violations"]}).then(
            found => found.violations.flatMap(v => v.nodes.map(
                node => `${v.id}: ${node.html.slice(0, 150)}: ${node.failureSummary}`)))""",
        [rules, {rule: {"enabled": False} for rule in without}],
    )
    return [" ".join(line.split()) for line in lines]


def structure(page: Page) -> list[str]:
    """Everything that does not depend on colours."""
    return violations(page, TAGS, without=(*COLOURS, *EXCUSED))


def contrast(page: Page, theme: str) -> list[str]:
    """Text too pale for its ground, or a link too like it, as a reader's system asks for it."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("t => (document.documentElement.dataset.theme ?? t) == t", arg=theme)
    return [f"{theme}: {line}" for line in violations(page, COLOURS)]


def test_site_is_accessible(site: Path, page: Page) -> None:
    paths = [site / f"{name}.html" for name in SAMPLE]
    if os.environ.get("COURSE_BROWSER") == "required":
        paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
        paths.remove(site / "index.html")  # leads to site/index.html at once
        assert len(paths) > 2 * 12  # a page and an instructor's page for each lesson
    found = []
    for path in paths:
        page.goto(path.as_uri())
        lines = structure(page) + contrast(page, "light") + contrast(page, "dark")
        found += [f"{path.relative_to(site)}: {line}" for line in lines]
    assert not found, "\n".join(found)


GOOD = """<!doctype html><html lang="en"><title>Rows</title>
<style>body {{background: white; color: #333}} @media (prefers-color-scheme: dark) {{
body {{background: #222; color: #ddd}}}}</style>
<main><h1>Rows</h1><h2>Fetched</h2><img alt="A table" src="data:,"><p>{}</p></main></html>"""


def test_a_page_without_faults_passes(page: Page) -> None:
    page.set_content(GOOD.format("Each id fetches its row."))
    assert structure(page) + contrast(page, "light") + contrast(page, "dark") == []


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ('<img src="data:,">', "image-alt"),
        ("<h4>Row</h4>", "heading-order"),
        ('<a href="#"></a>', "link-name"),
        ("<table><tr><th></th><th>claim</th></tr></table>", "empty-table-header"),
        ('<details><summary>Solution</summary><img src="data:,"></details>', "image-alt"),
    ],
)
def test_a_fault_is_found(page: Page, fault: str, rule: str) -> None:
    page.set_content(GOOD.format(fault))
    assert [line.partition(":")[0] for line in structure(page)] == [rule]


@pytest.mark.parametrize(("color", "pale"), [("#999", "light"), ("#555", "dark")])
def test_pale_text_is_found_in_the_theme_where_it_is_pale(
    page: Page, color: str, pale: str
) -> None:
    page.set_content(GOOD.format(f'<span style="color: {color}">Each id</span>'))
    both = {theme: contrast(page, theme) for theme in ("light", "dark")}
    assert [theme for theme, lines in both.items() if lines] == [pale]


def luminance(color: np.ndarray) -> np.ndarray:
    """WCAG's relative luminance of colours (..., 3) between 0 and 1."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast_ratio(one: np.ndarray, other: np.ndarray) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return float((light + 0.05) / (dark + 0.05))


def pale_texts(fig: Figure) -> list[str]:
    """The texts of a figure whose contrast with what is drawn beneath them is under 4.5:1."""
    fig.canvas.draw()
    texts = [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible()]
    boxes = [text.get_window_extent().extents for text in texts]
    for text in texts:
        text.set_visible(False)
    fig.set_layout_engine("none")  # everything stays where it was with its texts
    fig.canvas.draw()
    picture = np.asarray(fig.canvas.buffer_rgba())[::-1, :, :3]
    found = []
    for text, (left, bottom, right, top) in zip(texts, boxes, strict=True):
        under = picture[int(bottom) : int(top) + 1, int(left) : int(right) + 1].reshape(-1, 3)
        if not len(under):  # beside the figure, which grows when it is stored
            under = picture[:1, 0]
        colors, counts = np.unique(under, axis=0, return_counts=True)
        ratio = contrast_ratio(colors[counts.argmax()] / 255, np.array(to_rgb(text.get_color())))
        if ratio < 4.5:
            found.append(f"{text.get_text()}: {ratio:.2f}")
    return found


def drawings() -> dict[str, Figure]:
    """One figure of each kind that helpers draw, with all six colours of the palette."""
    figures.use_style()
    series = {f"way {n}": [n + 1, 2 * n + 3] for n in range(6)}
    shades = np.linspace(-1, 1, 12).reshape(6, 2)
    lit = dict(enumerate(figures.PALETTE))
    curves, bars = plt.subplots(), plt.subplots()
    figures.curves(curves[1], [1, 10], series)
    figures.bars(bars[1], ["first", "second"], series)
    names = {"rows": range(6), "columns": ["x", "y"], "name": "E"}
    return {
        "curves": curves[0],
        "bars": bars[0],
        "matrices": figures.matrices(
            figures.Matrix(shades, lit=lit, **names),
            figures.Matrix(shades, lit={2: figures.ORANGE}, **names),
            figures.Matrix(shades, columns_lit={1: figures.SKY}, **names),
            between="@=",
            title="A product",
        ),
        "lookup": figures.lookup([[0, 1, 2], [3, 4, 5]], figures.Matrix(shades, **names)),
        "claims": claims.draw_map(),
    }


def test_every_text_that_helpers_draw_can_be_read() -> None:
    found = {name: pale_texts(fig) for name, fig in drawings().items()}
    plt.close("all")
    assert found == dict.fromkeys(found, [])


@pytest.mark.parametrize(
    ("color", "ground", "pale"),
    [("#66707A", "white", False), ("#D55E00", "white", True), ("white", "#0072B2", False)],
)
def test_pale_text_in_a_figure_is_found(color: str, ground: str, pale: bool) -> None:
    fig, ax = plt.subplots(facecolor=ground)
    ax.axis("off")
    ax.text(0.5, 0.5, "a row", color=color)
    assert bool(pale_texts(fig)) is pale
    plt.close(fig)
