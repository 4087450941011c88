"""How long a notebook takes: the minutes on its card, and what a sitting may hold.

    minutes = words of prose / 200 + 8 s a line of code + 30 s a figure + 30 s a Predict
              + the minutes on the exercises' cards

Code of a program that a cell shows counts as the cell's own. Solutions and folded cells (tag
`hide-input`, for drawing) cost nothing, and the lines of an exercise's stub are in its card's
minutes. On three lessons of the course a learner's clock agreed with the formula to 15%.

`python -m tools.budget [paths ...]` prints a line for each notebook; without paths, for all that
are taught.
"""

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

from tools.lessons import is_side, read, tags, taught

TIME = re.compile(r"(\*\*Time:\*\* )\d+( minutes)")
SHOWN = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
EXERCISE = re.compile(r"^#+ Exercise", re.M)
MINUTES = re.compile(r"[Mm]inutes: (\d+)")
SECTION = re.compile(r"^## (.+)$", re.M)


class Limit(NamedTuple):
    """What a sitting may hold: minutes are a rule, the other numbers say what is too much."""

    minutes: int
    words: int
    lines: int
    exercises: tuple[int, int]  # from, to
    exercise_minutes: int


START = Limit(15, 1_000, 40, (1, 1), 3)
LESSON = Limit(45, 2_000, 130, (2, 3), 15)
SIDE = Limit(30, 1_300, 90, (1, 2), 10)


class Cost(NamedTuple):
    """What a notebook, or a part of one, asks of its reader."""

    words: int = 0
    lines: int = 0
    figures: int = 0
    predicts: int = 0
    exercises: int = 0
    exercise_minutes: int = 0

    @property
    def minutes(self) -> float:
        reading = self.words / 200 + self.lines * 8 / 60
        return reading + self.figures / 2 + self.predicts / 2 + self.exercise_minutes


def limit(path: Path) -> Limit:
    """The limit for the notebook at `path`: by its name's number and its folder."""
    if is_side(path):
        return SIDE
    return START if path.name.startswith("00") else LESSON


def folded(cell: NotebookNode) -> bool:
    """Whether a code cell's source is folded away, as that of a drawing is."""
    return "hide-input" in tags(cell)


def cost_of(cell: NotebookNode) -> Cost:
    """What one cell asks of a reader."""
    source = cell.source
    if cell.cell_type == "markdown":
        if "solution" in tags(cell) or "<details" in source:
            return Cost()
        minutes = [int(m) for m in MINUTES.findall(source)] if EXERCISE.search(source) else []
        return Cost(
            words=len(source.split()),
            predicts=source.count("**Predict"),
            exercises=len(minutes),
            exercise_minutes=sum(minutes),
        )
    if cell.cell_type != "code":
        return Cost()
    data = [out.get("data", {}) for out in cell.outputs]
    code = [part for d in data for part in SHOWN.findall(d.get("text/markdown", ""))]
    if not folded(cell) and "exercise" not in tags(cell):
        code.append(source)
    read_lines = sum(bool(line.strip()) for part in code for line in part.splitlines())
    return Cost(lines=read_lines, figures=int(any("image/png" in d for d in data)))


def total(cells: list[NotebookNode]) -> Cost:
    """What these cells ask of a reader together."""
    costs = [Cost(), *(cost_of(cell) for cell in cells)]
    return Cost(*map(sum, zip(*costs, strict=True)))


def cost(nb: NotebookNode) -> Cost:
    """What a whole notebook asks of its reader."""
    return total(nb.cells)


def sections(nb: NotebookNode, closing: Collection[str]) -> dict[str, int]:
    """Minutes of each section, by the id of its heading's cell; "closing" for those in `closing`.

    Title, card and set-up count for the first section. Whole minutes, which add up to the card's.
    """
    parts: dict[str, list[NotebookNode]] = {}
    name, early = "", []
    for cell in nb.cells:
        heading = SECTION.search(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            name = "closing" if heading[1] in closing else cell.id
        (parts.setdefault(name, []) if name else early).append(cell)
    if not parts:
        return {}
    first = next(iter(parts))
    parts[first] = early + parts[first]
    exact = {name: total(cells).minutes for name, cells in parts.items()}
    whole = {name: int(minutes) for name, minutes in exact.items()}
    rest = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in rest[: round(sum(exact.values())) - sum(whole.values())]:
        whole[name] += 1
    return whole


def write_card(nb: NotebookNode) -> None:
    """Put the minutes by the formula on the notebook's card, **Time:** NN minutes."""
    minutes = round(cost(nb).minutes)
    for cell in nb.cells[:2]:
        cell.source = TIME.sub(rf"\g<1>{minutes}\g<2>", cell.source)


def card(nb: NotebookNode) -> int:
    """The minutes that the notebook's card says; ValueError where it says none."""
    found = TIME.search("\n".join(cell.source for cell in nb.cells[:2]))
    if not found:
        raise ValueError("the card says no '**Time:** NN minutes'")
    return int(re.search(r"\d+", found[0])[0])


def too_much(nb: NotebookNode, path: Path) -> str:
    """Why the notebook does not fit a sitting, and in what it is over; "" if it fits."""
    spent, most = cost(nb), limit(path)
    if spent.minutes <= most.minutes:
        return ""
    shares = (
        ("words", spent.words, most.words),
        ("lines of code", spent.lines, most.lines),
        ("minutes of exercises", spent.exercise_minutes, most.exercise_minutes),
    )
    over = [f"{have:,} {what}, about {may:,} fit" for what, have, may in shares if have > may]
    over.append(f"{spent.figures} figures and {spent.predicts} Predicts")
    return f"{spent.minutes:.1f} minutes, and {most.minutes} are a sitting: {'; '.join(over)}"


def main(arguments: list[str]) -> None:
    for path in map(Path, arguments) if arguments else taught():
        spent, most = cost(read(path)), limit(path)
        print(
            f"{path.stem}: {spent.minutes:.1f} of {most.minutes} minutes; {spent.words} words, "
            f"{spent.lines} lines, {spent.figures} figures, {spent.predicts} Predicts, "
            f"{spent.exercises} exercises of {spent.exercise_minutes} minutes"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
