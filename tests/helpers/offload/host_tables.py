"""What the tests of tables on the host are made of.

Most train a plain nn.Embedding and a table of ours side by side. The loss has the rows in its
gradient, so a row that was served stale, or lost, shows in the weights of the end.
"""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.offload import CachedEmbedding, OffloadedEmbedding

SETTINGS = settings(derandomize=True, deadline=None, max_examples=25)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 0.01, torch.bfloat16: 0.05}


def rows_of(V: int, D: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(V, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def plain_of(start: Tensor, /, sparse: bool = True, **options: Any) -> nn.Embedding:
    options.setdefault("freeze", False)
    return nn.Embedding.from_pretrained(start.clone(), sparse=sparse, **options)


def table_of(start: Tensor, /, **options: Any) -> OffloadedEmbedding:
    options.setdefault("freeze", False)
    return OffloadedEmbedding.from_pretrained(start.clone(), **options)


def cached_of(start: Tensor, /, **options: Any) -> CachedEmbedding:
    options.setdefault("freeze", False)
    options.setdefault("lr", 0.1)
    return CachedEmbedding.from_pretrained(start.clone(), **options)


def small_cache_of(start: Tensor, /, **options: Any) -> CachedEmbedding:
    return cached_of(start, **{"rows": 14, **options})


# For tests that hold for either kind of table.
KINDS = pytest.mark.parametrize("make", [table_of, small_cache_of], ids=["offloaded", "cached"])


def stepper_of(table: nn.Embedding, update: str = "sgd", lr: float = 0.1) -> Any:
    """Whatever steps the table: an optimizer, or a cached table itself."""
    if isinstance(table, CachedEmbedding):
        return table
    kind = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}[update]
    return kind([table.weight], lr=lr)


def zipf(V: int, batches: int, size: int, seed: int = 0) -> list[Tensor]:
    """Batches of ids, of which the first are drawn often."""
    weights = 1 / torch.arange(1, V + 1) ** 1.05
    g = torch.Generator().manual_seed(seed)
    return list(weights.multinomial(batches * size, True, generator=g).view(batches, size))


def copies(batches: list[Tensor]) -> list[Tensor]:
    return [ids.clone() for ids in batches]


def loss_of(out: Tensor) -> Tensor:
    goal = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    return (out - goal.view(out.shape)).square().sum()


def learn(table: nn.Embedding, stepper: Any, batches: Iterable[Tensor]) -> None:
    for ids in batches:
        stepper.zero_grad()
        loss_of(table(ids)).backward()
        stepper.step()


def same(one: nn.Embedding, other: nn.Embedding) -> None:
    """The weights are the same, to rounding."""
    tolerance = TOLERANCE[one.weight.dtype]
    torch.testing.assert_close(one.weight, other.weight, atol=tolerance, rtol=tolerance)


def same_sum(cached: CachedEmbedding, adagrad: torch.optim.Optimizer) -> None:
    (state,) = adagrad.state.values()
    torch.testing.assert_close(cached.optimizer_state()["sum"], state["sum"], rtol=1e-4, atol=1e-5)


@st.composite
def look_ups(draw: st.DrawFn) -> tuple[Tensor, list[Tensor], dict[str, Any]]:
    """Rows, several tensors of ids, options."""
    V, D = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rows = rows_of(V, D, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 9)))
    kind, ids = draw(st.sampled_from([torch.int32, torch.int64])), []
    for shape in draw(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=3)):
        N = torch.Size(shape).numel()
        values = draw(st.lists(st.integers(0, V - 1), min_size=N, max_size=N))
        ids.append(torch.tensor(values, dtype=kind).view(shape))
    options = {
        "padding_idx": draw(st.none() | st.integers(-V, V - 1)),
        "max_norm": draw(st.sampled_from([None, None, 0.5, 1.0])),
        "norm_type": draw(st.sampled_from([1.0, 2.0, 3.0])),
        "scale_grad_by_freq": draw(st.booleans()),
    }
    return rows, ids, options


def unruly(table: nn.Embedding, stepper: Any, batches: Iterable[Tensor]) -> None:
    """Training with all that may happen between two batches."""
    saved = {name: tensor.clone() for name, tensor in table.state_dict().items()}
    other = torch.tensor([0, 7, 2])
    for k, ids in enumerate(batches):
        what = k % 11
        if what == 0:  # skipped
            continue
        if what == 1:  # another look-up first, and the gradients of both
            loss_of(table(other)).backward()
        if what == 2:  # evaluation
            with torch.no_grad():
                [table(torch.tensor([i])) for i in range(10)]
        if what == 3:  # a write by hand, before the look-up
            with torch.no_grad():
                table.weight[ids[:2]] = 0.5
        if what == 4:
            mixed = (saved["weight"] + table.state_dict()["weight"]) / 2  # forgets nothing
            table.load_state_dict({"weight": mixed})
        if what == 7:  # ids that are no longer those that were fetched
            ids.copy_(ids.flip(0).clamp(max=4))
        if what == 5:
            saved = {name: tensor.clone() for name, tensor in table.state_dict().items()}
        loss_of(table(ids)).backward()
        if what == 6:  # twice in a graph of its own
            loss_of(table(ids)).backward()
        if what == 8:  # gradients of two batches in one step
            continue
        if what in (5, 10):  # a write by hand, just before the step
            with torch.no_grad():
                table.weight[::2] -= 0.3
        stepper.step()
        stepper.zero_grad()
        if what == 9:  # a write by hand, after the step
            with torch.no_grad():
                table.weight.mul_(0.9)
