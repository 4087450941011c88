"""Side lesson 10 inside the model's table: what the reader can do without one of its parts.

Each way is trained as in lesson 10 on the 32,000 questions of data/scenes_seen.npz, from random
rows that learn, with one setting for all (rows of length 10, rate .01). A seed decides on the
rows, the first weights and the batches. All are judged on the same 8,000 questions, by kind, and
relations also by how far apart in height the two things are.
"""

from pathlib import Path
from typing import Any

from helpers import answering, eyes, scenes

from .answers import table_of, vocabulary

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "more" / "10_inside_the_model.ipynb"
FILES = (
    "helpers/answering.py", "helpers/eyes.py", "helpers/scenes.py",
    "tools/experiments/attention.py", "tools/experiments/answers.py",
)  # fmt: skip
CELLS = ()  # the model and its training are in helpers
# The way of Attention, and which slots it gets.
WAYS = {
    "whole": ("whole", "seen"),
    "softmax alone": ("softmax", "seen"),
    "hard glimpses": ("hard", "seen"),
    "perfect slots": ("whole", "perfect"),
    "no slots": ("whole", "none"),
}


def run(lesson: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The parameters and rows of the record.

    A row holds a way, a seed, the share of questions that are right ("right"), the same by kind
    ("kind color", ...), and for relations whose two things differ in height by under one cell of 8
    pixels, one to two, and more ("apart 0", "apart 1", "apart 2").
    """
    steps, count, seeds = (5, 200, (0,)) if tiny else (1000, 8_000, (0, 1, 2))
    seen, row_of = answering.load(), vocabulary()[0]
    learn = answering.encode(seen.questions, row_of)
    drawn = scenes.sample(2_000, seed=2)
    judge = scenes.ask(drawn, count, seed=2)
    looked = seen.eyes.look(scenes.pictures(drawn, seed=2))
    slots = {
        "seen": (seen.slots, looked),
        "none": (seen.slots * 0, looked * 0),
    }
    if not tiny:  # seconds, for the scenes of all training questions
        every = scenes.sample(len(seen.slots), seed=0)
        slots["perfect"] = (eyes.perfect(every), eyes.perfect(drawn))
    tests = {"right": judge}
    tests |= {f"kind {kind}": [q for q in judge if q.kind == kind] for kind in scenes.KINDS}
    related = tests["kind relation"]
    for cells in (0, 1, 2):
        tests[f"apart {cells}"] = [q for q in related if min(apart(drawn, q), 2) == cells]
    coded = {name: answering.encode(test, row_of) for name, test in tests.items() if test}
    rows = []
    for seed in seeds:
        for name, (way, sort) in WAYS.items():
            if sort not in slots:
                continue
            table = table_of("random", seed)
            reader = answering.train(table, learn, slots[sort][0], 0.01, steps, seed, way)
            row: dict[str, Any] = {"way": name, "seed": seed}
            for test, asked in coded.items():
                good = answering.right(reader, asked, slots[sort][1])
                row[test] = round(good.float().mean().item(), 4)
            rows.append(row)
            print(*row.values(), flush=True)
    return {"parameters": {"steps": steps, "questions": len(seen.questions), "seeds": seeds,
                           "length": 10, "rate": 0.01}, "rows": rows}  # fmt: skip


def apart(drawn: list[scenes.Scene], q: scenes.Question) -> int:
    """By how many whole cells the two things of a relation differ in height."""
    names = [w for w in q.words if w in scenes.COLOURS + scenes.SHAPES]
    one, two = (next(t for t in drawn[q.scene] if name in t) for name in names)
    return abs(one.y - two.y) // scenes.CELL
