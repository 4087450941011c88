"""Lesson 08's curve: rows random, frozen and tuned, over six budgets of labels and ten seeds.

A seed decides which bags are labelled, how the head starts, how random rows start and the order of
the batches. First the settings, on validation bags only: table rates and epochs, for each way and
budget. Then the curve with one setting for all ways, and the curve with each way's own best. Then
two budgets again under another batch size and other optimizers, whose table rate is chosen in the
same way. Every difference of two ways is stored with half its 95% interval, over seeds and bags.
"""

from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_fine_tuning.ipynb"
CELLS = (
    "set-up", "words-counts-documentation", "pretrained-torch-zeros-len-words",
    "def-batch-part-some", "def-batch-ids-offsets-labels", "class-classifier-nn-module",
    "def-fit-model-labelled",
    "def-trained-way-n-seed", "def-right-model-bags",
)  # fmt: skip
WAYS = ("random", "frozen", "tuned")
PAIRS = (("tuned", "frozen"), ("tuned", "random"), ("frozen", "random"))
EPOCHS = {20: 40, 80: 20, 320: 10, 1_280: 4, 5_000: 2, 20_000: 1}
TABLE_RATES = (0.001, 0.003, 0.01)
STUDENT = {5: 2.776, 10: 2.262, 2: 12.706}  # 95%, by seeds
OTHERS = (
    {"kind": "Adam", "size": 256, "head_rate": 0.03, "table rates": (0.001, 0.003, 0.01),
     "epochs": {320: 40, 20_000: 3}},
    {"kind": "Adagrad", "size": 64, "head_rate": 0.1, "table rates": (0.003, 0.01, 0.03, 0.1),
     "epochs": {320: 10, 20_000: 1}},
    {"kind": "SGD", "size": 64, "head_rate": 1.0, "table rates": (1, 10, 100, 1_000),
     "epochs": {320: 40, 20_000: 1}},
)  # fmt: skip


def gap(ours: Any, theirs: Any, t: float) -> tuple[float, float]:
    """Mean difference of two ways, in points, and half its interval.

    Both arguments are bool tensors (seeds, test bags): which bags a model got right. The variance
    of the mean over seeds and that over bags are added; `t` is Student's for the seeds.
    """
    difference = 100 * (ours.float() - theirs.float())
    seeds, bags = difference.shape
    by_seeds = difference.mean(dim=1).var() / seeds
    by_bags = difference.mean(dim=0).var() / bags
    return difference.mean().item(), t * (by_seeds + by_bags).sqrt().item()


def run(lesson: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The parameters and rows of the record.

    Rows of part "settings" hold a way, labels, table rate, epochs, seed and the share of validation
    bags that are right; of parts "curve" and "own best" the share of test bags; of part "other"
    also the optimizer, batch size and rates. A row of part "gap" or "own best gap" or "other gap"
    is the mean difference of two ways on test bags, in points, and half its 95% interval.
    """
    torch, batch, right = lesson["torch"], lesson["batch"], lesson["right"]
    epochs_of = {20: 2} if tiny else EPOCHS
    seeds = range(2) if tiny else range(10)
    choosing = range(100, 101 if tiny else 102)
    judges = {
        "validation": batch(lesson["train"], lesson["validation"]),
        "test": batch(lesson["test"], torch.arange(len(lesson["test"]))),
    }
    rows: list[dict[str, Any]] = []

    def judged(way: str, labels: int, seed: int, epochs: int, by: str, **settings):
        model = lesson["trained"](way, labels, seed, epochs, **settings)
        return right(model, judges[by])

    def share(way: str, labels: int, seed: int, epochs: int, table_rate: float, **settings):
        given = {"table_rate": table_rate, **settings}
        found = judged(way, labels, seed, epochs, "validation", **given)
        return round(found.float().mean().item(), 4)

    def curve(part: str, labels: int, by_way: dict[str, dict[str, Any]], seeds, **also) -> None:
        """Rows for each way and seed, then for each pair of ways."""
        answers = {}
        for way, settings in by_way.items():
            found = [judged(way, labels, seed, by="test", **settings) for seed in seeds]
            answers[way] = torch.stack(found)
            for seed, some in zip(seeds, found, strict=True):
                row = {"part": part, **also, "way": way, "labels": labels, "seed": seed}
                rows.append(row | {"right": round(some.float().mean().item(), 4)})
        for ours, theirs in PAIRS:
            points, half = gap(answers[ours], answers[theirs], STUDENT[len(seeds)])
            row = {"part": f"{part} gap", **also, "way": ours, "minus": theirs, "labels": labels}
            rows.append(row | {"points": round(points, 3), "half": round(half, 3)})
            print(*rows[-1].values(), flush=True)

    best = {}
    for labels, way in product(epochs_of, WAYS):
        found = {}
        some = epochs_of[labels]
        rates = TABLE_RATES[:1] if way == "frozen" else TABLE_RATES
        tried = {max(1, some // 2), some, 2 * some}
        for table_rate, epochs in product(rates, sorted(tried)):
            scores = [share(way, labels, seed, epochs, table_rate) for seed in choosing]
            found[table_rate, epochs] = mean(scores)
            for seed, score in zip(choosing, scores, strict=True):
                row = {"part": "settings", "way": way, "labels": labels, "table_rate": table_rate}
                rows.append(row | {"epochs": epochs, "seed": seed, "right": score})
        table_rate, epochs = max(found, key=found.get)
        best[way, labels] = {"table_rate": table_rate, "epochs": epochs}
        print(way, labels, best[way, labels], flush=True)

    for labels, epochs in epochs_of.items():
        one = {way: {"epochs": epochs, "table_rate": 0.003} for way in WAYS}
        curve("curve", labels, one, seeds)
        curve("own best", labels, {way: best[way, labels] for way in WAYS}, seeds)

    for other, labels in product(OTHERS, [20] if tiny else [320, 20_000]):
        kind, rates = other["kind"], other["table rates"]
        fixed = {name: other[name] for name in ("size", "head_rate")}
        fixed["kind"] = getattr(torch.optim, kind)
        epochs = 2 if tiny else other["epochs"][labels]
        by_way = {}
        for way in WAYS:
            found = {r: share(way, labels, 100, epochs, r, **fixed)
                     for r in (rates[:1] if way == "frozen" else rates)}  # fmt: skip
            by_way[way] = {"epochs": epochs, "table_rate": max(found, key=found.get), **fixed}
            print(kind, way, labels, found, flush=True)
        also = {"optimizer": kind, "size": other["size"]}
        curve("other", labels, by_way, range(2) if tiny else range(5), **also)
    parameters = {
        "epochs": {str(labels): epochs for labels, epochs in epochs_of.items()},
        "table_rate": 0.003, "head_rate": 0.03, "size": 64, "seeds": list(seeds),
        "table rates tried": TABLE_RATES, "others": OTHERS,
        "best": {f"{way}, {labels}": settings for (way, labels), settings in best.items()},
    }  # fmt: skip
    return {"parameters": parameters, "rows": rows}


def smaller(lesson: dict[str, Any]) -> None:
    """Nothing to make smaller: the tiny size takes one budget, two epochs and two seeds."""
