"""Rows fetched ahead are right, and nothing is left behind."""

import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from host_tables import (
    KINDS,
    cached_of,
    copies,
    learn,
    loss_of,
    plain_of,
    rows_of,
    same,
    small_cache_of,
    stepper_of,
    table_of,
    unruly,
    zipf,
)
from torch import Tensor, nn
from torch.optim import optimizer as optimizers

from helpers.offload import (
    CachedEmbedding,
    Meter,
    OffloadedEmbedding,
    Prefetcher,
    crossing,
)
from helpers.offload.table import LookUp


@contextlib.contextmanager
def other_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As if the device had memory of its own: what crosses is copied, and rows left behind spoiled.

    Gives the bytes that crossed, to the device and to the host.
    """
    crossed = [0, 0]

    def counting(real: Callable, way: int) -> Callable:
        def cross(tensor: Tensor, *others: Any) -> Tensor:
            crossed[way] += tensor.nbytes
            copied = real(tensor, *others).clone()
            if tensor.is_floating_point() and not tensor.requires_grad:
                tensor.fill_(float("nan"))
            return copied

        return cross

    with monkeypatch.context() as m:
        m.setattr(crossing, "to_device", counting(crossing.to_device, 0))
        m.setattr(crossing, "to_host", counting(crossing.to_host, 1))
        yield crossed


def test_a_default_device_does_not_draw_the_table_away() -> None:
    rows = rows_of(9, 3)
    plain, table = plain_of(rows), table_of(rows)
    cached = cached_of(rows, rows=6, update="adagrad", counts=torch.arange(9))
    sgd = stepper_of(table)
    batches = zipf(9, 6, 3)
    learn(plain, stepper_of(plain), batches)
    with torch.device("meta"):
        told, not_told = (
            Prefetcher(batches[3 * k :][:3], table, optimizer=o) for k, o in ((0, sgd), (1, None))
        )
        for ids in itertools.chain(told, not_told):
            sgd.zero_grad()
            out = table(ids)
            assert out.device.type == "cpu"
            out.backward(2 * (out - torch.linspace(-1, 1, 9, device="cpu").view(3, 3)).detach())
            sgd.step()
        assert cached(ids).device.type == "cpu"
        with pytest.raises(RuntimeError, match="Long, Int"):
            table(ids.float())
    same(table, plain)


@pytest.mark.parametrize("make", [table_of, lambda rows: cached_of(rows, rows=12)])
@pytest.mark.parametrize("through", [list, "prefetch"])
def test_all_that_crosses_goes_through_the_two_functions(make, through, monkeypatch) -> None:
    rows, batches = rows_of(30, 3), zipf(30, 20, 5)
    plain, table = plain_of(rows), make(rows)
    learn(plain, stepper_of(plain), batches)
    with other_side(monkeypatch) as crossed:
        ahead = Prefetcher(batches, table) if through == "prefetch" else batches
        learn(table, stepper_of(table), ahead)
        same(table, plain)
    assert crossed == [table.meter.to_device, table.meter.to_host] and min(crossed) > 0


@pytest.mark.parametrize("every", [1, 3])
def test_under_a_prefetcher_two_bytes_a_row_are_added(every: int) -> None:
    V, D, batches = 40, 3, zipf(40, 30, 6)
    table = table_of(rows_of(V, D))
    sgd = stepper_of(table)
    for k, ids in enumerate(Prefetcher(batches, table, optimizer=sgd)):
        loss_of(table(ids)).backward()
        if k % every == every - 1:
            sgd.step(), sgd.zero_grad()
    U = [len(ids.unique()) for ids in batches]
    # A row that was fetched ahead and written after crosses again: it was in an earlier batch whose
    # gradients are stepped while the batch waits, but not in the last one, which is left out.
    again = 0
    for k in range(every - 1, len(batches) - 1, every):
        before = torch.cat(batches[k - every + 1 : k + 1]).unique()
        written = before[~torch.isin(before, batches[k])]
        again += torch.isin(batches[k + 1].unique(), written).sum().item()
    assert (again > 0) == (every > 1)
    assert table.meter.to_device == sum(U) * (D * 4 + 2) + again * D * 4
    assert table.meter.to_host == sum(U) * (8 + D * 4)


def test_an_optimizer_that_may_change_every_row() -> None:
    V, D, batches = 40, 3, [torch.arange(k, k + 6) for k in range(0, 36, 6)]
    table = table_of(rows_of(V, D))
    sgd = torch.optim.SGD([table.weight], lr=0.1, momentum=0.9)
    learn(table, sgd, Prefetcher(batches, table, optimizer=sgd))
    U = 6 * len(batches)
    assert table.meter.to_device == U * (D * 4 + 2) + (U - 6) * D * 4


# Batches that are skipped, or whose ids are not those that were fetched.
NOT_ALL_ASKED_FOR = pytest.mark.filterwarnings("ignore:Rows were fetched ahead")
OPTIMIZERS = {
    "SGD": (True, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (True, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9)),
    "Adagrad": (True, lambda p: torch.optim.Adagrad(p, lr=0.1)),
    "SparseAdam": (True, lambda p: torch.optim.SparseAdam(p, lr=0.01)),
    "weight decay": (False, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1)),
    "dense SGD": (False, lambda p: torch.optim.SGD(p, lr=0.1)),
    "Adam": (False, lambda p: torch.optim.Adam(p, lr=0.01)),
    "fused Adam": (False, lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
}


def trainers(name: str) -> tuple[nn.Embedding, Any, OffloadedEmbedding, Any]:
    sparse, make = OPTIMIZERS[name]
    rows = rows_of(30, 3, torch.float64)
    plain, table = plain_of(rows, sparse=sparse), table_of(rows, sparse=sparse)
    return plain, make([plain.weight]), table, make([table.weight])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("told", ["no prefetcher", "told", "not told"])
def test_each_optimizer_steps_as_on_the_plain_module(name: str, told: str) -> None:
    plain, its, table, ours = trainers(name)
    batches = zipf(30, 40, 6)
    learn(plain, its, batches)
    ahead = Prefetcher(batches, table, optimizer=ours if told == "told" else None)
    learn(table, ours, batches if told == "no prefetcher" else ahead)
    same(table, plain)


@NOT_ALL_ASKED_FOR
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_row_is_served_stale_whatever_happens_between_batches(name: str) -> None:
    plain, its, table, ours = trainers(name)
    batches = zipf(30, 45, 6)
    unruly(plain, its, copies(batches))
    unruly(table, ours, Prefetcher(copies(batches), table, optimizer=ours))
    same(table, plain)


@NOT_ALL_ASKED_FOR
@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("rows", [30, 18, 10])
def test_a_cache_goes_through_the_same(prefetch: bool, rows: int) -> None:
    plain, its, table, _ = trainers("SGD")
    cached, batches = cached_of(table.weight.detach(), rows=rows), zipf(30, 45, 6)
    unruly(plain, its, copies(batches))
    ahead = copies(batches)
    unruly(cached, cached, Prefetcher(ahead, cached) if prefetch else ahead)
    same(cached, plain)


def test_a_replaced_weight_is_served() -> None:
    rows, new = rows_of(20, 2), rows_of(20, 2, seed=1)
    for table in (table_of(rows), cached_of(rows, rows=16)):
        for k, ids in enumerate(Prefetcher(torch.arange(20).split(4), table)):
            if k == 2:
                table.load_state_dict({"weight": new.clone()}, assign=True)
            if k == 4:
                table.weight = nn.Parameter(rows.clone())
            assert torch.equal(table(ids), (new if 2 <= k < 4 else rows)[ids])


@KINDS
def test_a_weight_at_the_address_of_one_that_is_gone_is_another(make: Callable) -> None:
    ids = torch.arange(4)
    table = make(rows_of(20, 2))
    for k in range(5):
        table(ids)
        for rows in [rows_of(20, 2, seed=2 * k + j) for j in range(2)]:
            table.weight = nn.Parameter(rows)  # the second time where the first weight was, often
        assert torch.equal(table(ids), rows[ids])


def leftovers() -> tuple:
    """What a prefetcher must not leave behind: its thread, its hooks."""
    hooks = optimizers._global_optimizer_post_hooks
    threads = [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    return len(hooks), len(optimizers._global_optimizer_pre_hooks), len(threads)


@KINDS
def test_a_loop_may_be_left_and_training_goes_on(make: Callable) -> None:
    rows, batches = rows_of(20, 2), zipf(20, 20, 5)
    plain, table = plain_of(rows), make(rows)
    stepper = stepper_of(table)
    learn(plain, stepper_of(plain), batches[:8] + batches[7:])
    for k, ids in enumerate(
        Prefetcher(batches, table, optimizer=None if stepper is table else stepper)
    ):
        learn(table, stepper, [ids])
        if k == 7:
            break
    assert leftovers() == (0, 0, 0) and table._ahead == []
    with pytest.raises(KeyError):
        for _ in Prefetcher(batches, table):
            raise KeyError
    assert leftovers() == (0, 0, 0) and table._ahead == []
    learn(table, stepper, Prefetcher(batches[7:], table))
    same(table, plain)
    assert leftovers() == (0, 0, 0)


@KINDS
def test_batches_before_an_iterators_error(make: Callable) -> None:
    table, batches = make(rows_of(20, 2)), zipf(20, 3, 5)

    def failing() -> Iterator[Tensor]:
        yield from batches
        raise OSError("no more")

    seen = []
    with pytest.raises(OSError, match="no more"):
        for ids in Prefetcher(failing(), table):
            seen.append(table(ids))
    assert len(seen) == 3 and leftovers() == (0, 0, 0)


@KINDS
@pytest.mark.parametrize("bad", [0, 3])
def test_wrong_ids_raise_when_their_batch_is_due(make: Callable, bad: int) -> None:
    rows, batches = rows_of(20, 2), zipf(20, 8, 5)
    plain, table = plain_of(rows), make(rows)
    stepper = stepper_of(table)
    ahead = iter(Prefetcher([*batches[:bad], torch.tensor([1, 20]), *batches[bad:]], table))
    learn(table, stepper, itertools.islice(ahead, bad))
    with pytest.raises(IndexError, match="index out of range in self"):
        next(ahead)
    learn(table, stepper, Prefetcher(batches[bad:], table))
    learn(plain, stepper_of(plain), batches)
    same(table, plain)


@KINDS
@pytest.mark.parametrize("batches", [0, 1])
def test_few_batches(make: Callable, batches: int) -> None:
    table = make(rows_of(20, 2))
    ahead = Prefetcher(iter(zipf(20, 2, 5)[:batches]), table)
    assert len([table(ids) for ids in ahead]) == batches
    assert list(ahead) == []


def test_batches_of_any_kind_and_prefetchers_in_each_other() -> None:
    rows = rows_of(20, 2)
    for table in (table_of(rows), small_cache_of(rows)):
        batches = [{"ids": ids, "k": k} for k, ids in enumerate(zipf(20, 5, 4))]
        for batch in Prefetcher(batches, table, ids=lambda batch: batch["ids"]):
            for ids in Prefetcher(zipf(20, 3, 3), table):
                assert torch.equal(table(ids), rows[ids])
            assert torch.equal(table(batch["ids"]), rows[batch["ids"]])


def test_max_norm_is_not_prefetched_but_into_a_cache() -> None:
    with pytest.raises(ValueError, match="max_norm=1.0 writes rows"):
        Prefetcher([], table_of(rows_of(4, 2), max_norm=1.0))
    assert list(Prefetcher([], cached_of(rows_of(4, 2), max_norm=1.0, rows=2))) == []


def test_ids_that_nobody_counts_the_writes_of() -> None:
    rows = rows_of(20, 2)
    for table in (table_of(rows), small_cache_of(rows)):
        with torch.inference_mode():
            for ids in Prefetcher(copies(zipf(20, 5, 4)), table):
                assert ids.is_inference() and torch.equal(table(ids), rows[ids])


@NOT_ALL_ASKED_FOR
@KINDS
def test_an_error_leaves_nothing_for_the_garbage_collector(make: Callable) -> None:
    table = make(rows_of(20, 2))

    def failing() -> Iterator[Tensor]:
        yield torch.tensor([1])
        raise OSError

    def left_by(batches: Iterable[Tensor]) -> weakref.ref:
        """A reference to what stands in the frame that calls the prefetcher, and catches."""
        here = Meter()
        with pytest.raises((IndexError, OSError)):
            list(Prefetcher(batches, table))
        return weakref.ref(here)

    gc.disable()
    try:
        for batches in ([torch.tensor([20])], [torch.tensor([1]), torch.tensor([20])], failing()):
            assert left_by(batches)() is None
    finally:
        gc.enable()
    assert leftovers() == (0, 0, 0)


def test_nothing_is_kept_alive() -> None:
    for table in (table_of(rows_of(20, 2)), small_cache_of(rows_of(20, 2))):
        learn(table, stepper_of(table), Prefetcher(zipf(20, 5, 4), table))
        assert table._ahead == [] and table._busy() == []


# --- What a Prefetcher keeps, and what it notices ---------------------------------------------


def alive(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[LookUp]":
    """Every look-up that is made from now on, for as long as it lives."""
    living: weakref.WeakSet[LookUp] = weakref.WeakSet()
    made = LookUp.__init__

    def remembered(self: LookUp, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        living.add(self)

    monkeypatch.setattr(LookUp, "__init__", remembered)
    return living


@KINDS
@pytest.mark.parametrize("collector", [True, False], ids=["gc", "no-gc"])
def test_two_batches_are_alive_at_most(make: Callable, collector: bool, monkeypatch) -> None:
    table, living, most = make(rows_of(40, 2)), alive(monkeypatch), 0
    stepper = stepper_of(table)
    if not collector:
        gc.disable()
    try:
        for ids in Prefetcher(zipf(40, 40, 4), table):
            learn(table, stepper, [ids])
            most = max(most, len(living))
    finally:
        gc.enable()
    assert most in (1, 2)


SEVERAL = {
    "list": (list, lambda batch: [batch["a"], batch["b"]]),
    "dict": (lambda tables: dict(zip("ab", tables, strict=True)), lambda batch: batch),
    "modules": (nn.ModuleList, lambda batch: (batch["a"], batch["b"])),
    "named modules": (lambda t: nn.ModuleDict(zip("ab", t, strict=True)), lambda batch: batch),
}


@KINDS
@pytest.mark.parametrize("how", SEVERAL)
def test_several_tables(make: Callable, how: str) -> None:
    rows = [rows_of(20, 2), rows_of(30, 3, seed=1)]
    batches = [{"a": a, "b": b} for a, b in zip(zipf(20, 15, 4), zipf(30, 15, 5, 1), strict=True)]
    plain, tables = [plain_of(r) for r in rows], [make(r) for r in rows]
    collect, ids = SEVERAL[how]
    its, ours = ([stepper_of(t) for t in both] for both in (plain, tables))
    if not isinstance(ours[0], CachedEmbedding):
        ours = [torch.optim.SGD([t.weight for t in tables], lr=0.1)]
    told = None if isinstance(ours[0], CachedEmbedding) else ours[0]
    ahead = Prefetcher(batches, collect(tables), ids=ids, optimizer=told)
    assert len(ahead) == 15
    for both, steppers, source in ((plain, its, batches), (tables, ours, ahead)):
        for batch in source:
            for stepper in steppers:
                stepper.zero_grad()
            sum(loss_of(t(batch[n])) for n, t in zip("ab", both, strict=True)).backward()
            for stepper in steppers:
                stepper.step()
    for one, other in zip(plain, tables, strict=True):
        same(one, other)
    if told is not None:  # each row crossed once
        for t, n in zip(tables, "ab", strict=True):
            U = sum(len(batch[n].unique()) for batch in batches)
            assert t.meter.to_device == U * (t.embedding_dim * 4 + 2)


def refilled(through: str) -> Iterator[Tensor]:
    buffer = torch.zeros(3, dtype=torch.int64)
    for k in range(4):
        if through == "numpy":
            buffer.numpy()[:] = k
        else:
            buffer.fill_(k)
        yield buffer


@KINDS
@pytest.mark.parametrize("through", ["torch", "numpy"])
def test_a_loader_that_fills_the_same_memory_again_is_told(make: Callable, through: str) -> None:
    table = make(rows_of(9, 2))
    with pytest.raises(RuntimeError, match="overwritten before .* batch.clone()"):
        for ids in Prefetcher(refilled(through), table):
            table(ids)
    assert len([table(ids) for ids in Prefetcher(map(Tensor.clone, refilled(through)), table)]) == 4
    again = [torch.tensor([1])] * 3  # the same batch three times is another thing
    assert len([table(ids) for ids in Prefetcher(again, table)]) == 3


OTHERS = {
    "view": lambda ids: ids.view(2, 2),
    "clone": lambda ids: ids.clone(),
    "long": lambda ids: ids.long(),
    "int": lambda ids: ids.int(),
}


@KINDS
@pytest.mark.parametrize("how", OTHERS)
def test_equal_ids_are_known_again(make: Callable, how: str) -> None:
    rows, batches = rows_of(20, 2), zipf(20, 6, 4)
    table, usual = make(rows), make(rows)
    for ids in Prefetcher([ids.int() for ids in batches] if how == "long" else batches, table):
        other = OTHERS[how](ids)
        out = table(other)
        assert torch.equal(out, rows[other.long()])
    for ids in Prefetcher(batches, usual):
        usual(ids)
    assert table.meter.to_device == usual.meter.to_device


@KINDS
def test_rows_that_nobody_asked_for_are_told_once(make: Callable) -> None:
    table = make(rows_of(20, 2))
    with pytest.warns(UserWarning, match="not asked for") as told:
        for ids in Prefetcher(zipf(20, 6, 4), table):
            table(ids + 1)
    assert len(told) == 1 and told[0].filename == __file__
    for _ in Prefetcher(zipf(20, 6, 4), table):  # a loop that is left says nothing
        break


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.tensor([1]), torch.tensor([0.0])), "type tuple, .* ids=lambda batch: batch"),
        ({"ids": torch.tensor([1])}, "type dict"),
        ([1, 2], "type list"),
    ],
    ids=["tuple", "dict", "list"],
)
def test_batches_that_are_no_tensors(batch: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        list(Prefetcher([batch], table_of(rows_of(4, 2))))


def test_what_a_prefetcher_refuses() -> None:
    table = table_of(rows_of(4, 2))
    for wrong in (nn.Embedding(4, 2), [table, nn.Embedding(4, 2)], None):
        with pytest.raises(TypeError, match="no OffloadedEmbedding or CachedEmbedding"):
            Prefetcher([], wrong)
    two = {"a": table, "b": table_of(rows_of(4, 2))}
    with pytest.raises(ValueError, match=r"tensors for \['a'\], and the tables are \['a', 'b'\]"):
        list(Prefetcher([torch.tensor([1])], two, ids=lambda ids: {"a": ids}))
    with pytest.raises(TypeError, match="len"):
        len(Prefetcher(iter([]), table))
