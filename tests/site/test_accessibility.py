"""Axe-core finds nothing on the built site that would keep a reader out, in light or in dark.

Its rules for WCAG 2.2 A and AA, and its best practice, headings in order among it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
COLOURS = ["color-contrast", "link-in-text-block"]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
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
