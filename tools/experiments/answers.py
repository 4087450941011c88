"""Lesson 10's grids: question words random, frozen and tuned, over questions and seeds.

First the settings, by questions on the scenes to choose with: the length of the rows and the rate,
for each way to start the words. Then two grids, on the scenes to judge with: "common", with one
setting for all, and "grid", where each way has the setting that was best for it. This one is also
judged in sentences that training never had, and on words that it never had, each beside the word
that training had for the same thing. A seed decides on the questions, the random rows, the first
weights and the batches; the network that sees the pictures is one for all.
"""

from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_visual_question_answering.ipynb"
CELLS = (
    "set-up", "three-sets", "labels", "eye", "eye-loss", "descend", "train-eye", "look", "slots",
    "vocabulary", "encode", "encoder", "attention", "reader", "train", "right", "judge",
    "table-of",
)  # fmt: skip
COMMON = (10, 0.01)  # length, rate


def run(lesson: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The parameters and rows of the record.

    A row of part "settings" holds a way, length, rate, seed and the share of questions that are
    right; one of part "common" a way, the questions trained on, a seed and that share. One of part
    "grid" holds more shares: by kind ("kind color", ...), in other sentences of the same words
    ("known") and of new words ("new"), and for each unseen word of those questions that have its
    trained word, with that word ("before sphere") and with the unseen one in its place ("after
    sphere").
    """
    lesson["tqdm"] = lambda batches, **_: batches  # a line for each model says more here
    scenes, ways = lesson["scenes"], lesson["WAYS"]
    steps = 10 if tiny else 1000
    settings = {
        "length": [10] if tiny else [2, 5, 10, 20],
        "rate": [0.01] if tiny else [0.004, 0.01],
        "seed": [0] if tiny else [0, 1],
    }
    budgets, seeds = ([100], [0]) if tiny else ([500, 2_000, 8_000, 32_000], [0, 1, 2, 3, 4])
    asked = {seed: scenes.ask(lesson["drawn"]["learn"], max(budgets), seed) for seed in seeds}
    slots, rows = lesson["slots"], []

    def trained(way: str, questions: int, seed: int, length: float, rate: float):
        table = lesson["table_of"](way, seed, length)
        few = lesson["encode"](asked[seed][:questions])
        return lesson["train"](table, few, slots["learn"], rate, steps, seed)

    def share(reader, questions, part: str = "judge") -> float:
        return round(lesson["right"](reader, questions, slots[part]).float().mean().item(), 4)

    middle = budgets[0] if tiny else 8_000
    for length, rate, seed, way in product(*settings.values(), ways):
        reader = trained(way, middle, seed, length, rate)
        row = {"way": way, "length": length, "rate": rate, "seed": seed}
        rows.append({"part": "settings", **row, "right": share(reader, lesson["choose"], "choose")})
        print(*rows[-1].values(), flush=True)
    best = {way: chosen([row for row in rows if row["way"] == way]) for way in ways}

    judge = lesson["judge"]
    tests = {"right": judge}
    tests |= {f"kind {kind}": [q for q in judge if q.kind == kind] for kind in scenes.KINDS}
    for sort in ("known", "new"):
        tests[sort] = scenes.ask(lesson["drawn"]["judge"], 4_000, seed=3, phrasings=sort)
    for unseen, word in scenes.UNSEEN.items():
        tests[f"before {unseen}"], tests[f"after {unseen}"] = scenes.swap(judge, word, unseen)
    for questions, seed, way in product(budgets, seeds, ways):
        reader = trained(way, questions, seed, *COMMON)
        row = {"part": "common", "way": way, "questions": questions, "seed": seed}
        rows.append(row | {"right": share(reader, judge)})
        print(*rows[-1].values(), flush=True)
        reader = trained(way, questions, seed, *best[way])
        row = {"part": "grid", "way": way, "questions": questions, "seed": seed}
        rows.append(row | {name: share(reader, test) for name, test in tests.items()})
        print("grid", way, questions, seed, rows[-1]["right"], flush=True)
    parameters = {"steps": steps, "settings": settings, "settings questions": middle,
                  "common": COMMON, "best": best, "questions": budgets, "seeds": seeds}  # fmt: skip
    return {"parameters": parameters, "rows": rows}


def smaller(lesson: dict[str, Any]) -> None:
    """Makes the tiny size tiny: the cells will draw and ask a tenth of what they say."""
    whole = lesson["scenes"]
    lesson["scenes"] = SimpleNamespace(
        **vars(whole)
        | {
            "sample": lambda n, seed: whole.sample(n // 10, seed),
            "ask": lambda some, n, seed, **kind: whole.ask(some, max(n // 10, 100), seed, **kind),
        }
    )


def chosen(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The length and rate whose mean over seeds is largest."""
    shares = defaultdict(list)
    for row in rows:
        shares[row["length"], row["rate"]].append(row["right"])
    return max(shares, key=lambda setting: mean(shares[setting]))
