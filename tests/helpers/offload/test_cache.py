"""A cache of hot rows ends with the weights of nn.Embedding."""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from host_tables import (
    SETTINGS,
    cached_of,
    learn,
    loss_of,
    plain_of,
    rows_of,
    same,
    same_sum,
    stepper_of,
    zipf,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.offload import CachedEmbedding, Prefetcher


class Directory:
    """The eviction rule told again, with sets: which ids are in the cache, which come and go."""

    def __init__(self, rows: int, counts: Tensor) -> None:
        self.rows, self.counts, self.inside = rows, counts.tolist(), set()
        self.stepped = False

    def look_up(self, ids: Tensor) -> tuple[int, int, int]:
        """M, E and how many of the ids were there."""
        wanted = set(ids.tolist())
        hits = sum(i in self.inside for i in ids.tolist())
        missing = wanted - self.inside
        full = len(self.inside) + len(missing) - self.rows
        leave = sorted(self.inside - wanted, key=self.counts.__getitem__)[: max(full, 0)]
        self.inside = (self.inside | missing) - set(leave)
        return len(missing), len(leave) if self.stepped else 0, hits


@pytest.mark.parametrize("update", ["sgd", "adagrad"])
def test_a_cache_moves_what_the_formula_says(update: str) -> None:
    V, D, batches = 50, 3, zipf(50, 40, 8)
    counts = torch.randperm(V, generator=torch.Generator().manual_seed(1))
    cached = cached_of(rows_of(V, D), rows=12, update=update, counts=counts)
    told, r, hits = Directory(12, counts), D * 4 * (2 if update == "adagrad" else 1), 0
    for k, ids in enumerate(batches):
        cached.meter.reset()
        M, E, there = told.look_up(ids)
        hits += there
        loss = loss_of(cached(ids))
        assert cached.meter.to_device == M * r + (4 * V if k == 0 else 0)
        assert cached.meter.to_host == M * 8 + E * (8 + r)
        loss.backward(), cached.step()
        told.stepped = True
        if k % 10 == 9:
            cached.meter.reset()
            cached.flush(), cached.flush()
            assert cached.meter.to_host == len(told.inside) * (8 + r)
            told.stepped = False
    assert (cached.hits, cached.lookups) == (hits, sum(map(len, batches)))
    cached.close()
    assert cached.hits == hits


@st.composite
def trainings(draw: st.DrawFn) -> tuple[Tensor, dict[str, Any], dict[str, Any], int]:
    """Rows, options of both tables, options of the cache, a seed."""
    V = draw(st.integers(8, 40))
    seed = draw(st.integers(0, 99))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float64]))
    options = {
        "padding_idx": draw(st.none() | st.integers(-V, V - 1)),
        "max_norm": draw(st.sampled_from([None, None, 1.0])),
        "scale_grad_by_freq": draw(st.booleans()),
    }
    g = torch.Generator().manual_seed(seed)
    cache = {
        "rows": draw(st.sampled_from([8, 12, V, V + 5])),
        "update": draw(st.sampled_from(["sgd", "adagrad"])),
        "counts": draw(st.sampled_from([None, torch.randint(9, (V,), generator=g)])),
        "initial_accumulator_value": draw(st.sampled_from([0.0, 0.5])),
    }
    return rows_of(V, draw(st.integers(1, 3)), dtype, seed), options, cache, seed


def optimizer_like(cached: CachedEmbedding, plain: nn.Embedding, start: float) -> Any:
    if cached.update == "sgd":
        return torch.optim.SGD([plain.weight], lr=cached.lr)
    return torch.optim.Adagrad(
        [plain.weight], lr=cached.lr, initial_accumulator_value=start, eps=cached.eps
    )


def train_together(
    plain: nn.Embedding, its: Any, cached: CachedEmbedding, batches: list[Tensor], ahead: Iterable
) -> None:
    """Several look-ups a step, gradients of several batches, evaluation, gradients forgotten."""
    for k, (ids, too) in enumerate(zip(batches, ahead, strict=True)):
        for table, mine, stepper in ((plain, ids, its), (cached, too, cached)):
            loss_of(table(mine)).backward()
            if k % 5 == 1:
                loss_of(table(mine[:2])).backward()
            if k % 7 == 2:
                stepper.zero_grad()
            if k % 4:
                stepper.step()
                stepper.zero_grad()
            if k % 6 == 3:
                with torch.no_grad():
                    table(mine[1:])


@given(trainings(), st.booleans())
@SETTINGS
def test_a_cache_ends_with_the_plain_module_s_weights(case: tuple, prefetch: bool) -> None:
    rows, options, cache, seed = case
    # Rows of two batches are in use with gradients of several batches, of three with a prefetcher.
    batches = zipf(len(rows), 24, 2 if prefetch else 4, seed)
    dense = {"sparse": False} if options["scale_grad_by_freq"] else {}
    plain, cached = plain_of(rows, **options, **dense), cached_of(rows, **options, **cache)
    its = optimizer_like(cached, plain, cache["initial_accumulator_value"])
    if dense and cached.update == "adagrad":
        assert cached.eps > 0  # a dense gradient of zero leaves a row alone all the same
    ahead = Prefetcher(batches, cached) if prefetch else batches
    train_together(plain, its, cached, batches, ahead)
    same(cached, plain)
    if cached.update == "adagrad":
        same_sum(cached, its)


@pytest.mark.parametrize("update", ["sgd", "adagrad"])
@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_long_training_with_a_small_cache(update: str, prefetch: bool, dtype: torch.dtype) -> None:
    V, steps = 200, 200 if dtype == torch.float64 else 50
    rows, batches = rows_of(V, 2, dtype), zipf(V, steps, 6)
    plain, cached = plain_of(rows), cached_of(rows, rows=16, update=update, lr=0.05)
    learn(plain, stepper_of(plain, update, lr=0.05), batches)
    learn(cached, cached, Prefetcher(batches, cached) if prefetch else batches)
    same(cached, plain)
    assert 0.2 < cached.hits / cached.lookups < 0.9


def test_bytes_of_half_precision_and_int32_ids_in_a_cache() -> None:
    rows = rows_of(30, 2, torch.float16)
    plain, cached = plain_of(rows), cached_of(rows, rows=12, lr=0.01)
    batches = [ids.int().view(2, 3) for ids in zipf(30, 30, 6)]
    learn(plain, stepper_of(plain, lr=0.01), batches)
    learn(cached, cached, Prefetcher(batches, cached))
    same(cached, plain)


def test_a_cache_with_odd_sizes() -> None:
    for V in (0, 1):
        cached = CachedEmbedding(V, 2, rows=3, lr=0.1)
        assert cached(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 2)
        loss_of(cached(torch.zeros(V, dtype=torch.long))).backward()
        cached.step()
        assert cached.cache_rows == V == cached.lookups
    assert cached_of(rows_of(4, 3), rows=1)(torch.tensor(2)).shape == (3,)


def test_reading_writes_back_at_any_moment() -> None:
    rows, batches = rows_of(20, 2), zipf(20, 12, 4)
    plain, cached = plain_of(rows), cached_of(rows, rows=6)
    read = [
        lambda: cached.state_dict()["weight"],
        lambda: cached.weight,
        lambda: copy.deepcopy(cached).weight,
        lambda: (cached.flush(), cached._parameters["weight"])[1],
        lambda: (cached.close(), cached._parameters["weight"])[1],
        lambda: cached.double().float().weight,
    ]
    for k, ids in enumerate(batches):
        for table in (plain, cached):
            learn(table, stepper_of(table), [ids])
        torch.testing.assert_close(read[k % len(read)](), plain.weight)


def test_training_resumes_exactly() -> None:
    rows, batches = rows_of(20, 2), zipf(20, 20, 4)
    through, first, second = (cached_of(rows, rows=6, update="adagrad") for _ in range(3))
    learn(through, through, batches)
    learn(first, first, batches[:9])
    second.load_state_dict(first.state_dict())
    second.load_optimizer_state(first.optimizer_state())
    learn(second, second, batches[9:])
    assert torch.equal(second.weight, through.weight)
    assert torch.equal(second.optimizer_state()["sum"], through.optimizer_state()["sum"])


def test_an_optimizer_s_state_that_does_not_fit_is_refused() -> None:
    adagrad, sgd = (
        cached_of(rows_of(4, 2), rows=2, update="adagrad"),
        cached_of(rows_of(4, 2), rows=2),
    )
    assert sgd.optimizer_state() == {} and sgd.load_optimizer_state({}) is None
    for table, state in ((sgd, adagrad.optimizer_state()), (adagrad, {})):
        with pytest.raises(ValueError, match="The state holds"):
            table.load_optimizer_state(state)
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        adagrad.load_optimizer_state({"sum": torch.zeros(3, 2)})


def test_a_state_of_another_dtype_is_assigned() -> None:
    rows, batches = rows_of(20, 2), zipf(20, 10, 4)
    plain, cached = plain_of(rows.double()), cached_of(rows, rows=6, update="adagrad")
    learn(cached, cached, batches[:1])
    cached.load_state_dict({"weight": rows.double()}, assign=True)
    cached.load_optimizer_state({"sum": torch.zeros(20, 2)})
    learn(cached, cached, batches)
    learn(plain, stepper_of(plain, "adagrad"), batches)
    same(cached, plain)


def test_gradients_wait_while_the_table_changes() -> None:
    ids = torch.tensor([1, 2, 2])
    for change in (
        lambda table: table.double(),
        lambda table: table.bfloat16(),
        lambda table: table.load_state_dict({"weight": rows_of(6, 2, seed=5)}),
        lambda table: table.weight.data_ptr(),
        lambda table: getattr(table, "close", int)(),
        lambda table: nn.init.ones_(table.weight),
    ):
        plain, cached = plain_of(rows_of(6, 2), sparse=False), cached_of(rows_of(6, 2), rows=3)
        for table in (plain, cached):
            loss_of(table(ids)).backward()
            change(table)
            if table is cached:
                table(torch.tensor([0]))
            stepper_of(table).step()
        same(cached, plain)


def test_two_writers_are_told_and_the_remedies_help() -> None:
    def at_odds() -> tuple[CachedEmbedding, Tensor]:
        cached = cached_of(torch.zeros(8, 1), rows=3)
        weight = cached.weight
        cached(torch.tensor([0, 1])).sum().backward()
        cached.step()
        with torch.no_grad():
            weight.fill_(5)
        with pytest.raises(RuntimeError, match="holds newer rows"):
            cached(torch.tensor([2]))
        return cached, torch.tensor([[-0.1], [-0.1], [5], [5], [5], [5], [5], [5]])

    cached, kept = at_odds()
    cached.flush()
    assert torch.equal(cached(torch.arange(2, 4)), kept[2:4]) and torch.equal(cached.weight, kept)
    cached, _ = at_odds()
    cached.load_state_dict({"weight": torch.ones(8, 1)})
    assert torch.equal(cached(torch.arange(3)), torch.ones(3, 1))


def test_too_small_a_cache_says_so_and_loses_nothing() -> None:
    rows, batches = rows_of(20, 2), zipf(20, 10, 4)
    plain, cached = plain_of(rows), cached_of(rows, rows=5)
    for ids in batches:
        for table in (plain, cached):
            learn(table, stepper_of(table), [ids])
        with pytest.raises(RuntimeError, match="5 rows cannot hold the 6 .* more rows, or smaller"):
            cached(torch.arange(6, 12))
    same(cached, plain)
    for ids in (torch.arange(4), torch.arange(4, 8)):
        loss_of(cached(ids)).backward()
    with pytest.raises(RuntimeError, match="hold the 8 .* step more often"):
        cached.step()
    cached.zero_grad()
    same(cached, plain)


def test_room_for_one_batch_is_enough() -> None:
    rows, batches = rows_of(20, 2), list(torch.arange(20).split(4))
    plain, cached = plain_of(rows), cached_of(rows, rows=4)
    learn(plain, stepper_of(plain), batches * 2)
    learn(cached, cached, Prefetcher(batches * 2, cached))
    for table in (plain, cached):
        stepper = stepper_of(table)
        losses = [
            loss_of(table(ids)) for ids in batches
        ]  # each look-up takes the slots of the last
        for loss in losses:
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    same(cached, plain)


def test_a_graph_that_is_kept() -> None:
    def strange(table: nn.Embedding) -> None:
        stepper, kept = stepper_of(table), []
        for ids in zipf(30, 12, 3):
            loss = loss_of(table(ids))
            loss.backward(retain_graph=True)
            stepper.step(), stepper.step() if table is cached else None
            stepper.zero_grad()
            loss.backward(retain_graph=True)  # the gradient of the rows as they were
            kept.append(loss)
            stepper.step()
            stepper.zero_grad()
            stepper.step()
        kept[0].backward()
        kept[5].backward()
        stepper.step()

    plain, cached = plain_of(rows_of(30, 2)), cached_of(rows_of(30, 2), rows=7)
    cached.step()
    strange(plain), strange(cached)
    same(cached, plain)


def test_a_frozen_cache_learns_nothing() -> None:
    rows = rows_of(9, 2)
    cached = cached_of(rows, rows=4, freeze=True)
    assert not cached(torch.tensor([1])).requires_grad
    cached.step()
    assert torch.equal(cached.weight, rows) and cached.meter.to_host == 8


def test_norms_come_home_without_a_step() -> None:
    plain, cached = (
        plain_of(rows_of(9, 2), max_norm=0.5),
        cached_of(rows_of(9, 2), max_norm=0.5, rows=4),
    )
    for ids in zipf(9, 6, 3):
        assert torch.equal(plain(ids), cached(ids))
    same(cached, plain)


def test_inference_first_and_training_after() -> None:
    rows, batches = rows_of(20, 2), zipf(20, 10, 4)
    plain, cached = plain_of(rows), cached_of(rows, rows=6)
    with torch.inference_mode():
        assert torch.equal(cached(batches[0]), rows[batches[0]])
    for table in (plain, cached):
        learn(table, stepper_of(table), batches)
    with torch.inference_mode():
        [cached(ids) for ids in batches]
    same(cached, plain)


def test_padding_stays_where_adagrad_divides_by_nothing() -> None:
    rows, ids = rows_of(4, 2), torch.tensor([0, 1])
    cached = cached_of(rows, rows=4, update="adagrad", eps=0.0, padding_idx=0)
    for _ in range(2):  # one look-up a step, and two
        loss_of(cached(ids)).backward()
        cached.step()
        loss_of(cached(ids)).backward()
    assert torch.equal(cached.weight[0], rows[0]) and cached.weight.isfinite().all()
    assert not torch.equal(cached.weight[1], rows[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sparse": False}, "sparse=False"),
        ({"rows": 0}, "rows=0"),
        ({"update": "adam"}, "update='adam'"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"eps": -1.0}, "eps=-1.0"),
        ({"initial_accumulator_value": -1.0}, "initial_accumulator_value=-1.0"),
        ({"counts": torch.ones(3)}, r"\(3,\); \(4,\)"),
    ],
)
def test_what_a_cache_refuses(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CachedEmbedding(4, 2, **({"rows": 2, "lr": 0.1} | wrong))


def test_counts_decide_what_stays() -> None:
    counts = torch.tensor([9.0, 1.0, 8.0, 1.0, 2.0**40])
    cached = cached_of(rows_of(5, 2), rows=3, counts=counts)
    with torch.no_grad():
        for i in (0, 2, 4, 1, 3):  # 1 has to take a place, and gives it to 3
            cached(torch.tensor([i]))
        before = cached.hits
        for i in (0, 4, 3):
            cached(torch.tensor([i]))
    assert cached.hits - before >= 2 and cached.lookups == 8


def test_the_rate_may_change_between_steps() -> None:
    plain, cached = plain_of(rows_of(9, 2)), cached_of(rows_of(9, 2), rows=5)
    sgd = stepper_of(plain)
    for lr in (0.1, 0.01, 0.2):
        sgd.param_groups[0]["lr"] = cached.lr = lr
        learn(plain, sgd, zipf(9, 4, 3)), learn(cached, cached, zipf(9, 4, 3))
    same(cached, plain)
