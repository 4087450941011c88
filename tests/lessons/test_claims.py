"""The claims, the lessons that settle them, and the tables that show them agree."""

import re
from pathlib import Path

import pytest

from helpers import claims
from tools import lessons

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.name[:2]: path for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
CLAIMS = claims.read()


def asserting_cells(lesson: str) -> dict[str, list[tuple[str, str]]]:
    """For each claim tagged in a lesson: the section and the source of its cells."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for cell in lessons.read(NOTEBOOKS[lesson]).cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^## (\d+)\.", cell.source, re.M)
            section = f"§{headings[-1]}" if headings else section
        for tag in lessons.tags(cell):
            if tag.startswith("claim-"):
                found.setdefault(tag.removeprefix("claim-"), []).append((section, cell.source))
    return found


CELLS = {lesson: asserting_cells(lesson) for lesson in NOTEBOOKS}


def complaints(
    claim: claims.Claim, cells: dict[str, dict[str, list[tuple[str, str]]]]
) -> list[str]:
    """What is wrong between a claim's line in claims.csv and the cells that should settle it."""
    there = [lesson for lesson in claim.lessons if lesson in cells]
    if claim.verdict == "open":
        wrong = [f"open, and yet lesson {n} settles it" for n in cells if claim.id in cells[n]]
        return wrong + ["open claims have no place and no evidence"] * bool(claim.where)
    if not there:
        return ["has a verdict, but none of its lessons is there"]
    wrong = [] if claim.evidence else ["has a verdict without evidence"]
    for lesson in there:
        found = cells[lesson].get(claim.id, [])
        if not found or not all(re.search(r"^ *assert ", source, re.M) for _, source in found):
            wrong.append(f"lesson {lesson} has no cell claim-{claim.id} that asserts it")
        if {f"{lesson} {section}" for section, _ in found} != {
            where for where in claim.where if where.startswith(lesson)
        }:
            wrong.append(f"stands in {[s for s, _ in found]} of lesson {lesson}, not {claim.where}")
    return wrong


def test_the_claims_are_all_there() -> None:
    assert [c.id for c in CLAIMS] == [f"C{n:02d}" for n in range(1, 36)]
    assert all(c.claim and c.lessons for c in CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_each_verdict_has_its_cell(claim: claims.Claim) -> None:
    assert not complaints(claim, CELLS)


def test_a_verdict_without_its_cell_is_noticed() -> None:
    def claim(verdict: str, where: tuple[str, ...], evidence: str = "said") -> claims.Claim:
        return claims.Claim("C99", "It is so.", verdict, ("01",), where, evidence)

    settled = {"01": {"C99": [("§2", "assert 1 + 1 == 2")]}}
    assert not complaints(claim("true", ("01 §2",)), settled)
    assert complaints(claim("true", ("01 §3",)), settled)
    assert complaints(claim("true", ("01 §2",), ""), settled)
    assert complaints(claim("true", ("01 §2",)), {"01": {"C99": [("§2", "print('so')")]}})
    assert complaints(claim("true", ("01 §2",)), {"01": {}})
    assert complaints(claim("true", ("01 §2",)), {})
    assert complaints(claim("open", (), ""), settled)
    assert not complaints(claim("open", (), ""), {"01": {}})


def test_every_tag_names_a_claim_of_its_lesson() -> None:
    of = {c.id: c.lessons for c in CLAIMS}
    for lesson, cells in CELLS.items():
        assert all(lesson in of.get(claim, ()) for claim in cells), lesson


@pytest.mark.parametrize("lesson", [n for n in NOTEBOOKS if CELLS[n]])
def test_each_lesson_shows_its_table(lesson: str) -> None:
    mine = [c for c in CLAIMS if any(w.startswith(f"{lesson} ") for w in c.where)]
    shown = [
        output["data"]["text/markdown"]
        for cell in lessons.read(NOTEBOOKS[lesson]).cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    assert shown == [claims.table(mine, lesson)], "run `make lessons`"


def test_the_readme_shows_the_claims(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(text, encoding="utf-8")
    claims.update_readme(copy)
    assert copy.read_text(encoding="utf-8") == text, "run `python -m helpers.claims`"


def test_the_readme_lists_the_lessons_with_their_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, path in NOTEBOOKS.items():
        nb = lessons.read(path)
        title = re.match(r"# \d\d · (.+)", nb.cells[0].source)[1]
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", nb.cells[1].source)[1]
        assert f"| [{number} {title}](notebooks/{path.name}) | {minutes} |" in text
    assert len(re.findall(r"^\| \[?\d\d ", text, re.M)) == 12


def test_the_table_escapes_nothing_and_loses_nothing() -> None:
    table = claims.table(CLAIMS)
    assert table.count("\n") == len(CLAIMS) + 1
    assert all(line.count("|") == 6 for line in table.splitlines())


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "data" / "claims.csv").read_text(encoding="utf-8")
    bad = tmp_path / "claims.csv"
    bad.write_text(text.replace("half-true", "mostly"), encoding="utf-8")
    with pytest.raises(ValueError, match="C04: verdict 'mostly'"):
        claims.read(bad)


def test_an_unknown_lesson_is_refused() -> None:
    with pytest.raises(ValueError, match="lesson '99'"):
        claims.show("99")


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="claims:begin"):
        claims.update_readme(readme)


def test_the_map_shows_every_claim_in_its_lessons() -> None:
    (ax,) = claims.draw_map().axes
    drawn = {
        (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata())
    }
    assert drawn == {(int(n), y) for y, c in enumerate(CLAIMS) for n in c.lessons}
    dots = sum(line.get_marker() == "." and len(line.get_xdata()) == 1 for line in ax.lines)
    assert dots == sum(not any(w.startswith(n) for w in c.where) for c in CLAIMS for n in c.lessons)
