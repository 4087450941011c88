"""The claims that the course settles: data/claims.csv, read and drawn as tables and a map."""

import csv
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from helpers import figures

ROOT = Path(__file__).parents[1]
VERDICTS = ("true", "half-true", "false", "answered", "open")


@dataclass(frozen=True)
class Claim:
    """One claim: `lessons` settle it ("02", "06"); `where` names their sections.

    "02 §1" is section 1 of lesson 02, "03 tied weights §2" is section 2 of a side lesson of 03.
    """

    id: str
    claim: str
    verdict: str
    lessons: tuple[str, ...]
    where: tuple[str, ...]
    evidence: str


def read(path: Path = ROOT / "data" / "claims.csv") -> list[Claim]:
    """All claims, in the file's order. ValueError where a verdict is none of `VERDICTS`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["verdict"] not in VERDICTS:
            raise ValueError(f"{row['id']}: verdict {row['verdict']!r} is none of {VERDICTS}")
    return [
        Claim(
            row["id"],
            row["claim"],
            row["verdict"],
            tuple(row["lessons"].split()),
            tuple(part.strip() for part in row["where"].split(";") if part.strip()),
            row["evidence"],
        )
        for row in rows
    ]


def table(claims: Iterable[Claim], lesson: str = "") -> str:
    """A Markdown table of `claims`; the sections of `lesson` stand there without its number."""
    lines = [f"| id | claim | verdict | evidence | {'section' if lesson else 'where'} |"]
    lines += ["|:--|:--|:--|:--|:--|"]
    for c in claims:
        where = [w.removeprefix(f"{lesson} ") for w in c.where]
        verdict = c.verdict if c.verdict == "open" else f"**{c.verdict}**"
        lines.append(f"| {c.id} | {c.claim} | {verdict} | {c.evidence} | {', '.join(where)} |")
    return "\n".join(lines)


def settled_in(lesson: str) -> list[Claim]:
    """The claims that `lesson` settles, "02" or "03 tied weights"."""
    return [c for c in read() if lesson in {where.rpartition(" §")[0] for where in c.where}]


def show(lesson: str) -> None:
    """Display the claims that `lesson`, such as "02", settles: verdict, evidence and section."""
    mine = settled_in(lesson)
    if not mine:
        raise ValueError(
            f"no claim is settled in lesson {lesson!r}: lessons are written '02', side lessons "
            "'03 tied weights'"
        )
    display(Markdown(table(mine, lesson)))


def draw_map() -> Figure:
    """Draw which lesson settles which claim, and how: a column a lesson, a row a claim."""
    claims = read()
    colors = (figures.GREEN, figures.ORANGE, figures.VERMILLION, figures.BLUE, "#A7B0B8")
    marks = dict(zip(VERDICTS, zip("osXD.", colors, strict=True), strict=True))
    fig, ax = plt.subplots(figsize=(7.4, 8.2))
    for y, claim in enumerate(claims):
        settled = {place.split()[0] for place in claim.where}
        for lesson in claim.lessons:
            mark, color = marks[claim.verdict if lesson in settled else "open"]
            ax.plot(int(lesson), y, mark, color=color, markersize=7)
    short = [textwrap.shorten(claim.claim, 58, placeholder=" …") for claim in claims]
    names = [f"{text}  {claim.id}" for text, claim in zip(short, claims, strict=True)]
    ax.set_yticks(range(len(claims)), names, size=8)
    last = max(int(lesson) for claim in claims for lesson in claim.lessons)
    ax.set_xticks(range(last + 1), [f"{n:02d}" for n in range(last + 1)])
    ax.set(xlim=(-0.5, last + 0.5), ylim=(len(claims) - 0.4, -0.6), xlabel="lesson")
    given = [verdict for verdict in VERDICTS if verdict in {claim.verdict for claim in claims}]
    keys = [ax.plot([], [], marks[verdict][0], color=marks[verdict][1])[0] for verdict in given]
    fig.legend(keys, given, loc="outside upper right", ncols=len(given), frameon=False)
    return fig
