"""Lesson 10's grids: question words random, frozen and tuned, over questions and seeds.

First the settings, by questions on the scenes to choose with: the length of the rows and the rate,
for each way to start the words. Then two grids, on the scenes to judge with: "common", with one
setting for all, and "grid", where each way has the setting that was best for it. This one is also
judged in sentences that training never had, and on words that it never had, each beside the word
that training had for the same thing. A seed decides on the questions, the random rows, the first
weights and the batches; the eyes that see the pictures are one pair for all, trained first.
"""

from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from helpers import answering, documentation, eyes, scenes, word2vec

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_visual_question_answering.ipynb"
CELLS = ()  # the model and its training are helpers.answering
FILES = (
    "helpers/answering.py", "helpers/eyes.py", "helpers/scenes.py", "tools/experiments/answers.py",
)  # fmt: skip
WAYS = ("random", "random, frozen", "pretrained, frozen", "pretrained, tuned")
COMMON = (10, 0.01)  # length, rate


def vocabulary() -> tuple[dict[str, int], torch.Tensor]:
    """The row of each word, and float32 (V, 100), the file's vectors; row 0 is zeros, for padding.

    The words of training come first, then those that it never has.
    """
    known = scenes.vocabulary("trained")
    others = {*scenes.vocabulary("known"), *scenes.vocabulary("new"), *scenes.UNSEEN} - {*known}
    words = ["<pad>", *known, *sorted(others)]
    names, vectors = word2vec.load(documentation.DATA / "docs_word2vec.bin", words[1:])
    if names != words[1:]:
        raise ValueError("docs_word2vec.bin lacks one of the words of helpers.scenes")
    pretrained = torch.zeros(len(words), vectors.shape[1])
    pretrained[1:] = torch.from_numpy(vectors)
    return {word: row for row, word in enumerate(words)}, pretrained


def table_of(way: str, seed: int, length: float = 10) -> nn.Embedding:
    """A table with the rows of one of the `WAYS`, each of the same length."""
    pretrained = vocabulary()[1]
    noise = torch.randn(pretrained.shape, generator=eyes.seeded(seed))
    rows = length * F.normalize(noise if "random" in way else pretrained)
    rows[0] = 0
    return nn.Embedding.from_pretrained(rows, freeze="frozen" in way, padding_idx=0)


def run(lesson: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The parameters and rows of the record.

    A row of part "settings" holds a way, length, rate, seed and the share of questions that are
    right; one of part "common" a way, the questions trained on, a seed and that share. One of part
    "grid" holds more shares: by kind ("kind color", ...), in other sentences of the same words
    ("known") and of new words ("new"), and for each unseen word of those questions that have its
    trained word, with that word ("before sphere") and with the unseen one in its place ("after
    sphere").
    """
    part = 10 if tiny else 1  # a tenth of the scenes and questions
    steps = 10 if tiny else 1000
    settings = {
        "length": [10] if tiny else [2, 5, 10, 20],
        "rate": [0.01] if tiny else [0.004, 0.01],
        "seed": [0] if tiny else [0, 1],
    }
    budgets, seeds = ([100], [0]) if tiny else ([500, 2_000, 8_000, 32_000], [0, 1, 2, 3, 4])
    counts = {"learn": 16_000, "choose": 2_000, "judge": 2_000}
    drawn = {name: scenes.sample(n // part, seed) for seed, (name, n) in enumerate(counts.items())}
    images = {name: scenes.pictures(some, seed) for seed, (name, some) in enumerate(drawn.items())}
    looks = eyes.train_eyes(images["learn"], drawn["learn"])
    slots = {name: looks.look(some) for name, some in images.items()}
    asked = {seed: scenes.ask(drawn["learn"], max(budgets), seed) for seed in seeds}
    choose = scenes.ask(drawn["choose"], 4_000 // part, seed=1)
    judge = scenes.ask(drawn["judge"], 8_000 // part, seed=2)
    row_of, rows = vocabulary()[0], []

    def trained(way: str, questions: int, seed: int, length: float, rate: float):
        few = answering.encode(asked[seed][:questions], row_of)
        return answering.train(table_of(way, seed, length), few, slots["learn"], rate, steps, seed)

    def share(reader, questions, where: str = "judge") -> float:
        good = answering.right(reader, answering.encode(questions, row_of), slots[where])
        return round(good.float().mean().item(), 4)

    middle = budgets[0] if tiny else 8_000
    for length, rate, seed, way in product(*settings.values(), WAYS):
        reader = trained(way, middle, seed, length, rate)
        row = {"way": way, "length": length, "rate": rate, "seed": seed}
        rows.append({"part": "settings", **row, "right": share(reader, choose, "choose")})
        print(*rows[-1].values(), flush=True)
    best = {way: chosen([row for row in rows if row["way"] == way]) for way in WAYS}

    tests = {"right": judge}
    tests |= {f"kind {kind}": [q for q in judge if q.kind == kind] for kind in scenes.KINDS}
    for sort in ("known", "new"):
        tests[sort] = scenes.ask(drawn["judge"], 4_000 // part, seed=3, phrasings=sort)
    for unseen, word in scenes.UNSEEN.items():
        tests[f"before {unseen}"], tests[f"after {unseen}"] = scenes.swap(judge, word, unseen)
    for questions, seed, way in product(budgets, seeds, WAYS):
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


def chosen(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The length and rate whose mean over seeds is largest."""
    shares = defaultdict(list)
    for row in rows:
        shares[row["length"], row["rate"]].append(row["right"])
    return max(shares, key=lambda setting: mean(shares[setting]))
