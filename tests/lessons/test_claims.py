"""The claims, the lessons that settle them, and the tables that show them agree."""

import re
from pathlib import Path

import pytest

from helpers import claims
from tools import lessons

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {lessons.label(path): path for path in lessons.taught()}
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
    if claim.verdict == "open":
        wrong = [f"open, and yet lesson {n} settles it" for n in cells if claim.id in cells[n]]
        return wrong + ["open claims have no place and no evidence"] * bool(claim.where)
    wrong = [] if claim.evidence else ["has a verdict without evidence"]
    asserted = set()
    for lesson, found in cells.items():
        for section, source in found.get(claim.id, []):
            asserted.add(f"{lesson} {section}")
            if not re.search(r"^ *assert ", source, re.M):
                wrong.append(f"{lesson} {section}: its cell asserts nothing")
    if asserted != set(claim.where):
        wrong.append(f"is asserted in {sorted(asserted)}, not in {claim.where}")
    numbers = {place[:2] for place in claim.where}
    return wrong + [f"lesson {n} does not settle it" for n in claim.lessons if n not in numbers]


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
    side = {"01 equal rows": settled["01"]}
    assert not complaints(claim("true", ("01 equal rows §2",)), side)
    assert complaints(claim("true", ("01 §2",)), side)
    assert complaints(claim("open", (), ""), settled)
    assert not complaints(claim("open", (), ""), {"01": {}})


def test_every_tag_names_a_claim_of_its_lesson() -> None:
    of = {c.id: c.lessons for c in CLAIMS}
    for lesson, cells in CELLS.items():
        assert all(lesson[:2] in of.get(claim, ()) for claim in cells), lesson


@pytest.mark.parametrize("lesson", [n for n in NOTEBOOKS if CELLS[n]])
def test_each_lesson_shows_its_table(lesson: str) -> None:
    mine = claims.settled_in(lesson)
    shown = [
        output["data"]["text/markdown"]
        for cell in lessons.read(NOTEBOOKS[lesson]).cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    remedy = "run `make lessons`, or let data/claims.csv and the tags of the cells agree"
    assert shown == [claims.table(mine, lesson)], remedy


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


def test_the_map_shows_every_claim_in_its_lessons() -> None:
    (ax,) = claims.draw_map().axes
    drawn = {
        (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata())
    }
    assert drawn == {(int(n), y) for y, c in enumerate(CLAIMS) for n in c.lessons}
    dots = sum(line.get_marker() == "." and len(line.get_xdata()) == 1 for line in ax.lines)
    assert dots == sum(not any(w.startswith(n) for w in c.where) for c in CLAIMS for n in c.lessons)
