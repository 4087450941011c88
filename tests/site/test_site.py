"""The built site: whole, without a dead link, and readable without a network."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from sphinx.search.en import SearchEnglish

from helpers import claims
from tools import lessons, tables

ROOT = Path(__file__).parents[2]
NOTEBOOKS = lessons.paths()
FRONT, CLAIMS = "site/index.html", "site/claims.html"
Pages = dict[str, BeautifulSoup]


def read_pages(folder: Path) -> Pages:
    """Each HTML page below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): BeautifulSoup(path.read_bytes(), "html.parser")
        for path in sorted(folder.rglob("*.html"))
    }


@pytest.fixture(scope="module")
def pages(site: Path) -> Pages:
    """The pages of the site, parsed; without the title and contents that only print shows."""
    found = read_pages(site)
    for page in found.values():
        for element in page.select(".onlyprint"):
            element.decompose()
    return {name: page for name, page in found.items() if not name.startswith("_static/")}


def page_of(path: Path) -> str:
    """The site's page for a notebook."""
    return path.relative_to(ROOT).with_suffix(".html").as_posix()


def ids(page: BeautifulSoup) -> list[str]:
    return [element["id"] for element in page.select("[id]")]


def dead_links(folder: Path, pages: Pages) -> Iterator[str]:
    """Each link, script, style and image that leads to no file, or to no anchor of its page."""
    anchors = {name: set(ids(page)) for name, page in pages.items()}
    for name, page in pages.items():
        for element in page.select("[href], [src]"):
            link = element.get("href") or element.get("src") or ""
            parts = urlsplit(link)
            if parts.scheme or not link:
                continue
            path = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
            if not path.is_file():
                yield f"{name}: {link} leads to no file"
                continue
            target = path.resolve().relative_to(folder.resolve()).as_posix()
            fragment = unquote(parts.fragment)
            if fragment and fragment not in anchors.get(target, ()):
                yield f"{name}: {link} leads to no anchor"


def foreign(folder: Path, pages: Pages) -> Iterator[str]:
    """What a page or its style sheets would load from another host."""
    host = re.compile(r"(https?:)?//")
    for name, page in pages.items():
        for element in page.select("[src], link[href], [srcset], [data]"):
            for attribute in ("src", "href", "srcset", "data"):
                if host.match(element.get(attribute) or "") and element.get("rel") != ["license"]:
                    yield f"{name}: <{element.name}> loads {element[attribute]}"
        for script in page.select("script:not([src])"):
            for address in re.findall(
                r"(?:import|fetch|load)\(?['\" (]+(https?:[^'\"]+)", str(script)
            ):
                yield f"{name}: a script loads {address}"
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)", text):
            yield f"{path.relative_to(folder).as_posix()}: loads {address}"


def untidy(name: str, page: BeautifulSoup) -> Iterator[str]:
    """What a reader of headings and alt texts stumbles on."""
    levels = [int(heading.name[1]) for heading in page.select("h1, h2, h3, h4, h5, h6")]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"{name}: headings of level {levels}; one h1, and first"
    for above, level in pairwise(levels):
        if level > above + 1:
            yield f"{name}: h{level} below h{above}"
    for image in page.select("img"):
        if image.get("alt") is None:  # "" says: decoration, as the logo beside its name is
            yield f"{name}: no alt text for {image.get('src')}"
    for double in (anchor for anchor, count in Counter(ids(page)).items() if count > 1):
        yield f"{name}: {double!r} is the id of several elements"


def test_every_source_has_its_page(site: Path, pages: Pages) -> None:
    pages_of_ours = [*ROOT.glob("site/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    sources = [*lessons.every(), *pages_of_ours]
    wanted = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in sources}
    assert wanted <= set(pages)
    for path in lessons.taught():
        title = lessons.read(path).cells[0].source.splitlines()[0].removeprefix("# ")
        assert pages[page_of(path)].h1.text.startswith(title)
    assert FRONT in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", lessons.taught(), ids=lambda path: path.stem)
def test_every_cell_can_be_linked_and_every_figure_read(path: Path, pages: Pages) -> None:
    page, nb = pages[page_of(path)], lessons.read(path)
    missing = {cell.id for cell in nb.cells} - set(ids(page))
    assert not missing
    for cell in nb.cells:
        if cell.cell_type == "code":
            shown = [image["alt"] for image in page.find(id=cell.id).select("img")]
            pictures = (o for o in cell.outputs if "image/png" in o.get("data", {}))
            assert shown == [out.metadata["image/png"]["alt"] for out in pictures]
    folded = page.select("article details > summary + .highlight-python")
    assert len(folded) == len(page.select(".tag_exercise")) == len(lessons.exercises(nb))


def test_the_lessons_follow_one_another(pages: Pages) -> None:
    names = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS]
    for name, following in pairwise(names):
        assert pages[name].select_one("a.right-next")["href"] == Path(following).name


@pytest.mark.parametrize("path", lessons.side_paths(), ids=lambda path: path.stem)
def test_side_lessons_stand_below_their_lesson(path: Path, pages: Pages) -> None:
    entries = pages["site/index.html"].select("li.toctree-l1")  # the lessons come first
    entry = next(item for item in entries if item.a.get_text().startswith(path.stem[:2]))
    assert f"../{page_of(path)}" in [link["href"] for link in entry.select("details a")]
    assert entry.select_one("summary")["aria-label"] == f"Side lessons of {entry.a.get_text()}"


def test_each_claim_leads_to_the_cells_that_assert_it(pages: Pages) -> None:
    front = pages[CLAIMS]
    assert [item["id"] for item in front.select("ul.claims > li")] == [c.id for c in claims.read()]
    for claim in claims.read():
        item = front.find(id=claim.id)
        assert item.select_one(".verdict").text.strip() == claim.verdict
        assert item.select_one(".claim").text.strip()
        links = {link.text: link["href"] for link in item.select("a")}
        assert tuple(links) == claim.where
        for place, link in links.items():
            name, _, anchor = link.removeprefix("../").partition("#")
            assert place.startswith(lessons.label(ROOT / name).removesuffix(".html"))
            cell = pages[name].find(id=anchor)
            assert f"tag_claim-{claim.id}" in cell["class"], f"{claim.id}: {link}"
            assert cell.select_one(f'p.remark a[href$="claims.html#{claim.id}"]')


def test_the_front_page_shows_the_claims_that_surprise(pages: Pages) -> None:
    shown = [item.select_one(".number").text for item in pages[FRONT].select("ul.claims > li")]
    assert sorted(shown) == sorted(tables.SURPRISING)


def test_the_front_page_lists_the_lessons_with_their_questions(pages: Pages) -> None:
    cards = pages[FRONT].select("ul.lessons > li")
    assert [Path(card.a["href"]).stem for card in cards] == [path.stem for path in NOTEBOOKS]
    for card in cards:
        assert card.select_one(".question").text.strip().endswith("?")
        assert re.fullmatch(r"\d+ minutes", card.select_one(".minutes").text.strip())


def test_no_link_is_dead(site: Path, pages: Pages) -> None:
    assert not list(dead_links(site, pages))


def test_nothing_is_loaded_from_another_host(site: Path, pages: Pages) -> None:
    assert not list(foreign(site, pages))


def test_headings_and_pictures_are_in_order(pages: Pages) -> None:
    assert not [complaint for name in pages for complaint in untidy(name, pages[name])]


def finder(site: Path) -> Callable[[str], set[str]]:
    """A function that names the pages in which the site's search finds all words of a text."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    english = SearchEnglish({})

    def pages_with(word: str) -> set[str]:
        """Those that have the word in a text or in a heading."""
        found: set[int] = set()
        for where in ("terms", "titleterms"):
            pages = index[where].get(english.stem(word.lower()), [])
            found |= {pages} if isinstance(pages, int) else set(pages)
        return {index["docnames"][i] for i in found}

    def pages(text: str) -> set[str]:
        words = [w for w in english.split(text) if english.word_filter(english.stem(w.lower()))]
        return set.intersection(*map(pages_with, words))

    return pages


def test_a_reader_can_search(site: Path) -> None:
    assert "notebooks/06_word2vec_from_scratch" in finder(site)("skip-gram")
    assert finder(site)("skip nowhere-to-be-found") == set()


def test_the_search_finds_each_error_by_its_words(site: Path) -> None:
    pages, lost, seen = finder(site), [], 0
    for path in lessons.asked_paths():
        for cell in lessons.read(path).cells:
            if "error" in lessons.tags(cell):
                heading = cell.source.splitlines()[0]
                code = re.search(r"`([^`]+)`", heading)
                said = code[1] if code else heading.removeprefix("## ")
                lost += [] if f"notebooks/asked/{path.stem}" in pages(said) else [said]
                seen += 1
    assert lost == [] and seen > 30


def test_faults_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="x">A</h1><h3 id="x">B</h3><img src="no.png">'
        '<a href="#y">1</a> <a href="b.html">2</a> <a href="#x">3</a>'
        '<script src="https://example.org/a.js"></script>',
        encoding="utf-8",
    )
    (tmp_path / "a.css").write_text("p { background: url(//example.org/a.png) }", encoding="utf-8")
    pages = read_pages(tmp_path)
    assert list(dead_links(tmp_path, pages)) == [
        "a.html: no.png leads to no file",
        "a.html: #y leads to no anchor",
        "a.html: b.html leads to no file",
    ]
    assert list(foreign(tmp_path, pages)) == [
        "a.html: <script> loads https://example.org/a.js",
        "a.css: loads //example.org/a.png",
    ]
    assert list(untidy("a.html", pages["a.html"])) == [
        "a.html: h3 below h1",
        "a.html: no alt text for no.png",
        "a.html: 'x' is the id of several elements",
    ]


def test_the_build_refuses_unknown_cells(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "site" / "static", tmp_path / "site" / "static")
    shutil.copy(ROOT / "site" / "conf.py", tmp_path / "site")
    cell = nbformat.v4.new_markdown_cell("# One\n\nWords.", id="one")
    nb = nbformat.v4.new_notebook(cells=[cell], metadata=lessons.METADATA)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nb, tmp_path / "notebooks" / "01_lookup_tables.ipynb")
    here = "../notebooks/01_lookup_tables.ipynb"
    (tmp_path / "site" / "index.md").write_text(
        "# Front\n\n$E^\\top = \\frac{1}{2}$\n\n"
        "```{toctree}\n../notebooks/01_lookup_tables\n```\n\n"
        f"[a]({here}#one) [b]({here}#no-such-cell) [c](../notebooks/02_two.ipynb#two)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "site", "."]
    done = subprocess.run(
        [*command, tmp_path / "built"],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode != 0
    warnings = re.findall(r"WARNING: (.*)", done.stderr)
    assert len(warnings) == 2
    assert "not found in doc 'notebooks/01_lookup_tables': 'no-such-cell'" in warnings[0]
    assert "'../notebooks/02_two.ipynb#two'" in warnings[1]
    front = BeautifulSoup((tmp_path / "built" / FRONT).read_bytes(), "html.parser")
    assert front.select_one("math mfrac")
