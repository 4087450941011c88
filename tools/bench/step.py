"""How long one training step of a table takes: dense, sparse, one-hot and Linear, offloaded.

On the CPU, on one thread. A step is zero_grad, forward, backward from a fixed gradient, and the
optimizer's step. Every step has ids of its own, so that no variant finds its rows in the
processor's cache because it has just used them.
"""

import dataclasses
import time as clock
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.offload import OffloadedEmbedding

from .common import Block, in_turn, short, target, targets, zipf

CPU = torch.device("cpu")
VARIANTS = ("dense", "sparse", "one-hot", "offloaded")
BATCHES = 64  # of ids, taken in turn; as many as the steps that are made
LR = 0.01


@dataclasses.dataclass(frozen=True)
class Case:
    """A table of V rows of D numbers, a number of ids, the optimizer, and how ids are drawn."""

    V: int
    D: int
    ids: int
    optimizer: str
    drawn: str = "uniform"

    def variants(self) -> list[str]:
        """Those that fit: a dense step over 4,000,000 rows, say, is left out."""
        fits = {"dense": self.V * self.D <= 32_000_000, "one-hot": self.V * self.ids <= 10_000_000}
        return [name for name in VARIANTS if fits.get(name, True)]

    def batches(self) -> list[Tensor]:
        if self.drawn == "zipf":
            return list(zipf(self.V, (BATCHES, self.ids), s=1.05, seed=0))
        generator = torch.Generator().manual_seed(0)
        return list(torch.randint(self.V, (BATCHES, self.ids), generator=generator))


@dataclasses.dataclass(frozen=True)
class Parameters:
    cases: tuple[Case, ...]
    growth: tuple[tuple[Case, Case], ...]  # the sparse step on a small table, and on a large one
    parts: tuple[Case, ...]
    budget: float  # seconds for each variant of a case


_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_SMALL = Case(10_000, 32, 8_192, "")
DEFAULT = Parameters(
    cases=(
        *(Case(V, 32, 512, "SGD") for V in (*_SIZES, 4_000_000)),
        *(Case(V, 32, 512, "SparseAdam") for V in _SIZES),
        *(Case(100_000, 128, ids, optimizer, "uniform")
          for optimizer in ("SGD", "Adagrad", "SparseAdam") for ids in (64, 512, 8_192)),
        *(Case(100_000, 128, 8_192, optimizer, "zipf")
          for optimizer in ("SGD", "Adagrad", "SparseAdam")),
    ),
    growth=tuple(
        (Case(10_000, 32, ids, optimizer, drawn), Case(4_000_000, 32, ids, optimizer, drawn))
        for optimizer in ("SGD", "Adagrad", "SparseAdam")
        for ids, drawn in ((512, "uniform"), (8_192, "uniform"), (8_192, "zipf"))
    ),
    parts=tuple(Case(100_000, 128, ids, "SGD", drawn)
                for drawn in ("uniform", "zipf") for ids in (64, 512, 8_192)),
    budget=0.3,
)  # fmt: skip
TINY = Parameters(
    cases=tuple(Case(200, 4, 16, optimizer) for optimizer in ("SGD", "Adagrad", "SparseAdam")),
    growth=((Case(200, 4, 16, "SGD"), Case(400, 4, 16, "SGD")),),
    parts=(Case(200, 4, 16, "SGD", "zipf"),),
    budget=0.01,
)


# PyTorch's own Adagrad makes sparse tensors and warns where nobody said whether to check them.
unchecked = partial(torch.sparse.check_sparse_tensor_invariants, False)


class Trained(NamedTuple):
    step: Callable[[Tensor], None]  # trains on a batch of ids
    weight: Tensor  # (V, D)
    module: nn.Module


def trained(variant: str, case: Case, start: Tensor) -> Trained:
    """A table, (V, D), which `start` becomes, and its training step; one step is made."""
    module = _module(variant, start)
    optimizer = _optimizer(case.optimizer, variant, module)
    gradient = torch.randn(case.ids, case.D, generator=torch.Generator().manual_seed(1))

    def step(ids: Tensor) -> None:
        optimizer.zero_grad()
        if variant == "one-hot":
            ids = F.one_hot(ids, case.V).float()
        module(ids).backward(gradient)
        optimizer.step()

    step(torch.zeros(case.ids, dtype=torch.int64))
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value += 0  # touch every page, as long training has, before a page fault is timed
    weight = module.weight.detach()
    return Trained(step, weight.T if variant == "one-hot" else weight, module)


def _steps(table: Trained, batches: Sequence[Tensor]) -> Callable[[], None]:
    """A step on the next batch at each call."""
    coming = cycle(batches)
    return lambda: table.step(next(coming))


def _module(variant: str, start: Tensor) -> nn.Module:
    if variant == "one-hot":
        linear = nn.Linear(len(start), start.shape[1], bias=False)
        linear.weight.data = start.T.contiguous()
        return linear
    if variant == "offloaded":
        return OffloadedEmbedding.from_pretrained(start, freeze=False)
    return nn.Embedding.from_pretrained(start, freeze=False, sparse=variant == "sparse")


def _optimizer(name: str, variant: str, module: nn.Module) -> torch.optim.Optimizer:
    if name == "SparseAdam" and variant in ("dense", "one-hot"):
        name = "Adam"  # SparseAdam takes sparse gradients alone
    return getattr(torch.optim, name)(module.parameters(), lr=LR)


def measured(parameters: Parameters) -> dict[str, Any]:
    """The record: every case, how the sparse step grows with V, and the offloaded step's parts."""
    with torch.random.fork_rng(devices=[]), unchecked():
        torch.manual_seed(0)
        rows = [row for case in parameters.cases for row in _compare(case, parameters.budget)]
        growth = [_growth(*pair, parameters.budget) for pair in parameters.growth]
        parts = [_parts(case, parameters.budget) for case in parameters.parts]
    return {
        "benchmark": "step",
        "parameters": {"lr": LR, "zipf": 1.05, "batches": BATCHES, "budget": parameters.budget},
        "rows": rows,
        "growth": growth,
        "parts": parts,
        "targets": _targets(rows, growth),
    }


def _compare(case: Case, budget: float) -> list[dict[str, Any]]:
    """A row for each variant of a case, timed in turn; `ratio` is to the sparse one's time."""
    start, batches = _random(case), case.batches()
    tables = {name: trained(name, case, start.clone()) for name in case.variants()}
    moved = _bytes(tables["offloaded"].module, case, batches[0])
    steps = {name: _steps(table, batches) for name, table in tables.items()}
    times = in_turn(steps, CPU, budget)
    return [
        {
            **dataclasses.asdict(case),
            "variant": name,
            **times[name],
            "ratio": short(times[name]["seconds"] / times["sparse"]["seconds"]),
            **(moved if name == "offloaded" else {}),
        }
        for name in tables
    ]


def _bytes(table: OffloadedEmbedding, case: Case, ids: Tensor) -> dict[str, int]:
    """What the meter counts for one batch, equal to what the docstring's formula says.

    RuntimeError if it is not.
    """
    table.meter.reset()
    table(ids).sum().backward()
    table.zero_grad()
    U = len(ids.unique())
    of_rows = U * case.D * table.weight.element_size()
    formula = {"to_device": of_rows, "to_host": U * ids.element_size() + of_rows}
    counted = {"to_device": table.meter.to_device, "to_host": table.meter.to_host}
    if counted != formula:
        raise RuntimeError(f"{case}: the meter counted {counted}; the formula says {formula}.")
    return counted


def _growth(small: Case, large: Case, budget: float) -> dict[str, Any]:
    """How many times as long the sparse step takes on the large table as on the small one.

    "same_ids" is the same ratio where both get the ids of the small one. Between the two ratios
    lies what rows that are scattered over more memory cost, and what more distinct rows do.
    """
    one, other = (trained("sparse", case, _random(case)) for case in (small, large))
    steps = {"from_seconds": _steps(one, small.batches()),
             "same_ids_seconds": _steps(other, small.batches()),
             "seconds": _steps(other, large.batches())}  # fmt: skip
    times = {name: t["seconds"] for name, t in in_turn(steps, CPU, budget).items()}
    ratios = {"same_ids": times["same_ids_seconds"], "ratio": times["seconds"]}
    ratios = {name: short(time / times["from_seconds"]) for name, time in ratios.items()}
    return {**dataclasses.asdict(large), "from_V": small.V, **times, **ratios}


def _random(case: Case) -> Tensor:
    return torch.rand(case.V, case.D)


def _parts(case: Case, budget: float) -> dict[str, Any]:
    """Seconds of each part of an offloaded and of a sparse step under SGD.

    "rest" is what no part explains: autograd, the optimizer's own work, Python.
    """
    start, batches = _random(case), case.batches()
    wholes = {f"{name}whole": _steps(trained(variant, case, start.clone()), batches)
              for name, variant in (("", "offloaded"), ("sparse ", "sparse"))}  # fmt: skip
    times = in_turn(wholes, CPU, budget)
    found = {name: [time["seconds"]] for name, time in times.items()}
    weight, gradient = start.clone(), torch.ones(case.ids, case.D)
    for by_hand in (_offloaded_by_hand, _sparse_by_hand):
        for ids in batches:
            begin = clock.perf_counter()
            for name in by_hand(weight, gradient, ids):
                found.setdefault(name, []).append(clock.perf_counter() - begin)
                begin = clock.perf_counter()
    least = {name: short(min(all_)) for name, all_ in found.items()}
    explained = sum(least[name] for name in ("unique", "gather", "spread", "sum", "step"))
    least["rest"] = short(least["whole"] - explained)
    least["sparse rest"] = short(
        least["sparse whole"] - least["sparse look-up"] - least["sparse step"]
    )
    distinct = sum(len(ids.unique()) for ids in batches) // len(batches)
    return {**dataclasses.asdict(case), "distinct": distinct, "seconds": least}


def _offloaded_by_hand(weight: Tensor, gradient: Tensor, ids: Tensor) -> Iterator[str]:
    """A step, part by part; each one's name comes when it is done."""
    distinct, inverse = ids.unique(return_inverse=True)
    yield "unique"
    rows = weight.index_select(0, distinct)
    yield "gather"
    output = F.embedding(inverse, rows)
    yield "spread"
    summed = torch.ops.aten.embedding_dense_backward(gradient, inverse, len(rows), -1, False)
    yield "sum"
    whole = torch.sparse_coo_tensor(distinct[None], summed, weight.shape, is_coalesced=True)
    weight.add_(whole, alpha=-LR)
    yield "step"
    del output  # alive until here, as in a real step


def _sparse_by_hand(weight: Tensor, gradient: Tensor, ids: Tensor) -> Iterator[str]:
    """The same for nn.Embedding(sparse=True), and what Adagrad and SparseAdam do first."""
    output = F.embedding(ids, weight)
    yield "sparse look-up"
    whole = torch.sparse_coo_tensor(ids[None], gradient, weight.shape)
    weight.add_(whole, alpha=-LR)
    yield "sparse step"
    whole.coalesce()
    yield "coalesce"
    del output


def _targets(rows: list[dict], growth: list[dict]) -> list[dict[str, Any]]:
    found = [
        target(f"offloaded / sparse, SparseAdam, {r['ids']:,} {r['drawn']} ids, D = {r['D']}",
               r["ratio"], 1.2)
        for r in rows
        if (r["variant"], r["optimizer"], r["D"]) == ("offloaded", "SparseAdam", 128)
        and r["ids"] == 8_192
    ]  # fmt: skip
    return found + [
        target(f"sparse step, V = {g['V']:,} / {g['from_V']:,}, {g['optimizer']}, {g['ids']:,} "
               f"{g['drawn']} ids", g["ratio"], 1.5)
        for g in growth
    ]  # fmt: skip


# --- What is printed --------------------------------------------------------------------------


def report(record: dict[str, Any]) -> list[Block]:
    keys = ("V", "D", "ids", "drawn", "optimizer")
    cases: dict[tuple, dict[str, dict]] = {}
    for row in record["rows"]:
        cases.setdefault(tuple(row[key] for key in keys), {})[row["variant"]] = row
    others = [name for name in VARIANTS if name != "sparse"]
    cells = [(*keys, "sparse ms", *others)]
    for case, of in cases.items():
        ratios = [f"{of[name]['ratio']:.2f}" if name in of else "-" for name in others]
        cells.append((*(f"{x:,}" if isinstance(x, int) else x for x in case),
                      f"{of['sparse']['seconds'] * 1e3:.3f}", *ratios))  # fmt: skip
    grown = [("ids", "drawn", "optimizer", "from V", "ms", "to V", "ms", "ratio", "same ids")]
    grown += [(f"{g['ids']:,}", g["drawn"], g["optimizer"], f"{g['from_V']:,}",
               f"{g['from_seconds'] * 1e3:.3f}", f"{g['V']:,}", f"{g['seconds'] * 1e3:.3f}",
               f"{g['ratio']:.2f}", f"{g['same_ids']:.2f}") for g in record["growth"]]  # fmt: skip
    names = ("unique", "gather", "spread", "sum", "step", "rest", "whole")
    names += ("sparse whole", "sparse step", "coalesce")
    parts = [("ids", "drawn", "distinct", *names)]
    parts += [(f"{p['ids']:,}", p["drawn"], f"{p['distinct']:,}",
               *(f"{p['seconds'][name] * 1e3:.3f}" for name in names))
              for p in record["parts"]]  # fmt: skip
    return [
        ("One training step, one thread: how many times as long as nn.Embedding(sparse=True) it "
         "takes,\nwhose own milliseconds are given. (With SparseAdam, dense and one-hot have "
         "Adam; - is too large.)", cells),
        ("The sparse step as the table grows, D = "
         f"{record['growth'][0]['D']}; and where the large table gets the small one's ids:", grown),
        ("The parts of an offloaded step under SGD, V = "
         f"{record['parts'][0]['V']:,}, D = {record['parts'][0]['D']}, in milliseconds; then the "
         "whole sparse one,\nSGD's part of it, and what coalescing its gradient takes:", parts),
        targets(record["targets"]),
    ]  # fmt: skip
