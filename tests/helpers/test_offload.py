"""Tables on the host do what nn.Embedding does, and lose nothing on the way.

Most tests train a plain nn.Embedding and a table of ours side by side. The loss has the rows in its
gradient, so a row that was served stale, or lost, shows in the weights of the end.
"""

import contextlib
import copy
import functools
import gc
import io
import itertools
import linecache
import pickle
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import optimizer as optimizers

from helpers import offload
from helpers.offload import CachedEmbedding, Meter, OffloadedEmbedding, Prefetcher

SETTINGS = settings(derandomize=True, deadline=None, max_examples=25)
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 0.01, torch.bfloat16: 0.05}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """One thread, and sparse tensors checked: Adagrad makes some, and PyTorch warns if not told."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.sparse.check_sparse_tensor_invariants(True):
        yield
    torch.set_num_threads(threads)


# --- What the tests are made of ---------------------------------------------------------------


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


@contextlib.contextmanager
def other_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As if the device had memory of its own: what crosses is copied, and rows left behind spoiled.

    Gives the bytes that crossed, to the device and to the host.
    """
    crossed = [0, 0]

    def crossing(real: Callable, way: int) -> Callable:
        def cross(tensor: Tensor, *others: Any) -> Tensor:
            crossed[way] += tensor.nbytes
            copied = real(tensor, *others).clone()
            if tensor.is_floating_point() and not tensor.requires_grad:
                tensor.fill_(float("nan"))
            return copied

        return cross

    with monkeypatch.context() as m:
        m.setattr(offload, "to_device", crossing(offload.to_device, 0))
        m.setattr(offload, "to_host", crossing(offload.to_host, 1))
        yield crossed


# --- OffloadedEmbedding against nn.Embedding --------------------------------------------------


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


@given(look_ups(), st.booleans())
@SETTINGS
def test_rows_gradients_and_norms_are_those_of_the_plain_module(case: tuple, sparse: bool) -> None:
    rows, several, options = case
    if sparse and rows.dtype == torch.float16:
        several = several[:1]  # on a CPU, PyTorch adds no sparse gradients of this dtype
    plain, table = plain_of(rows, sparse=False, **options), table_of(rows, sparse=sparse, **options)
    expected, out = [plain(ids) for ids in several], [table(ids) for ids in several]
    for a, b in zip(expected, out, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert torch.equal(plain.weight, table.weight)  # after max_norm
    sum(loss_of(a) for a in expected).backward()
    sum(loss_of(b) for b in out).backward()
    gradient = table.weight.grad
    assert gradient.is_sparse == sparse and gradient.dtype == rows.dtype
    tolerance = TOLERANCE[rows.dtype]
    torch.testing.assert_close(
        gradient.to_dense(), plain.weight.grad, atol=tolerance, rtol=tolerance
    )


@given(look_ups())
@SETTINGS
def test_the_sparse_gradient_is_coalesced_and_has_the_plain_one_s_rows(case: tuple) -> None:
    rows, (ids, *_), options = case
    options["scale_grad_by_freq"] = False  # the plain module refuses it with sparse=True
    plain, table = plain_of(rows, **options), table_of(rows, **options)
    loss_of(plain(ids.view(-1))).backward()  # a single id and padding_idx are too much for it
    loss_of(table(ids)).backward()
    # Sorted, each row once. (PyTorch forgets that it knows so when it puts a gradient in .grad.)
    gradient, expected = table.weight.grad, plain.weight.grad.coalesce()
    assert torch.equal(gradient._indices(), expected.indices())
    (gradient,) = torch.autograd.grad(loss_of(table(ids)), table.weight)
    assert gradient.is_coalesced() and gradient.indices().dtype == torch.int64


def test_gradients_accumulate_over_backward_passes() -> None:
    plain, table = (make(rows_of(6, 3)) for make in (plain_of, table_of))
    for ids in ([0, 1, 1], [1, 5]), [[2]], ([0],):
        for one in (plain, table):
            sum(loss_of(one(torch.tensor(i))) for i in ids).backward()
    torch.testing.assert_close(table.weight.grad.to_dense(), plain.weight.grad.to_dense())


def test_frozen_and_without_gradients() -> None:
    ids = torch.tensor([1, 2])
    assert not table_of(rows_of(4, 2), freeze=True)(ids).requires_grad
    table = table_of(rows_of(4, 2))
    with torch.no_grad():
        assert not table(ids).requires_grad
    with torch.inference_mode():
        assert torch.equal(table(ids), table.weight[ids])
    assert table(ids).requires_grad


def test_the_gradient_of_the_gradient_is_refused() -> None:
    table = table_of(rows_of(4, 2), sparse=False)
    loss = table(torch.tensor([1])).pow(3).sum()
    (gradient,) = torch.autograd.grad(loss, table.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


BAD_IDS = [
    torch.tensor([0, 5]),
    torch.tensor([[-1]]),
    torch.tensor(9, dtype=torch.int32),
    torch.tensor([1.0]),
    torch.tensor([True]),
    torch.tensor([1], dtype=torch.int16),
    torch.empty(0),
    [1, 2],
    None,
]


@pytest.mark.parametrize("kind", [OffloadedEmbedding, CachedEmbedding])
@pytest.mark.parametrize("ids", BAD_IDS, ids=str)
def test_wrong_ids_raise_the_plain_module_s_error_before_anything_crosses(kind, ids, monkeypatch):
    others = {"rows": 3, "lr": 0.1} if kind is CachedEmbedding else {}
    table = kind(5, 2, **others)
    with pytest.raises(Exception) as expected:
        nn.Embedding(5, 2)(ids)
    # Where the ids are to go elsewhere, they are looked at first.
    monkeypatch.setattr(offload, "_take", None)
    monkeypatch.setattr(offload, "to_device", None)
    with pytest.raises(expected.type) as error:
        table(ids)
    assert str(error.value) == str(expected.value)
    elsewhere = kind(5, 2, **others)
    elsewhere.device = torch.device("meta")  # a device that no test can do without
    with pytest.raises(expected.type) as error:
        elsewhere(ids)
    assert str(error.value) == str(expected.value)
    assert elsewhere.meter.to_device == elsewhere.meter.to_host == table.meter.to_device == 0


@pytest.mark.parametrize("ids", [i for i in BAD_IDS if isinstance(i, Tensor)], ids=str)
def test_wrong_ids_with_max_norm_raise_errors_of_the_same_type_and_write_nothing(ids) -> None:
    table, plain = OffloadedEmbedding(5, 2, max_norm=0.1), nn.Embedding(5, 2, max_norm=0.1)
    before = table.weight.detach().clone()
    with pytest.raises((IndexError, RuntimeError)) as expected:
        plain(ids)
    with pytest.raises(expected.type):
        table(ids)
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize("padding_idx", [5, -6])
def test_a_wrong_padding_raises_as_the_plain_module_s(padding_idx: int) -> None:
    for make in (nn.Embedding, OffloadedEmbedding):
        with pytest.raises(AssertionError, match="Padding_idx must be within"):
            make(5, 2, padding_idx)


def test_defaults_and_arguments_are_those_of_the_plain_module() -> None:
    torch.manual_seed(0)
    plain = nn.Embedding(7, 3, -2, dtype=torch.float64)
    torch.manual_seed(0)
    table = OffloadedEmbedding(7, 3, -2, dtype=torch.float64)
    assert isinstance(table, nn.Embedding) and torch.equal(plain.weight, table.weight)
    for name in ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "embedding_dim"):
        assert getattr(plain, name) == getattr(table, name)
    assert table.sparse and table.device is None and table.weight.requires_grad
    assert repr(table).startswith("OffloadedEmbedding(7, 3, padding_idx=5, sparse=True, weight on")
    with pytest.raises(ValueError, match='device="meta"'):
        OffloadedEmbedding(7, 3, device="meta")


def test_from_pretrained_shares_rows_on_the_host_and_is_frozen_unless_told() -> None:
    rows = rows_of(4, 2)
    table = OffloadedEmbedding.from_pretrained(rows)
    assert table.weight.data_ptr() == rows.data_ptr() and not table.weight.requires_grad
    meter = Meter()
    options = {"freeze": False, "padding_idx": 1, "max_norm": 2.0, "device": "cpu", "meter": meter}
    table = OffloadedEmbedding.from_pretrained(rows, **options)
    assert table.weight.requires_grad and table.padding_idx == 1 and table.meter is meter
    with pytest.raises(ValueError, match=r"\(V, D\), not \(4,\)"):
        OffloadedEmbedding.from_pretrained(rows[:, 0])


@pytest.mark.parametrize(
    "make", [OffloadedEmbedding, lambda V, D: cached_of(rows_of(V, D), rows=2)]
)
@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts_go_both_ways(make, assign: bool) -> None:
    plain, table = nn.Embedding(4, 2), make(4, 2)
    assert table.load_state_dict(plain.state_dict(), strict=True, assign=assign)
    same(plain, table)
    assert torch.equal(table(torch.tensor([3])), plain.weight[3:])
    with torch.no_grad():
        table.weight[1] = 7
    back = nn.Embedding(4, 2)
    back.load_state_dict(table.state_dict(), strict=True, assign=assign)
    assert torch.equal(back.weight, table.weight) and back.weight[1, 0] == 7
    with pytest.raises(RuntimeError, match="size mismatch"):
        table.load_state_dict(nn.Embedding(5, 2).state_dict())


def test_a_frozen_table_stays_frozen_when_a_state_is_assigned() -> None:
    table = table_of(rows_of(4, 2), freeze=True)
    table.load_state_dict(nn.Embedding(4, 2).state_dict(), assign=True)
    assert not table.weight.requires_grad


def through_pickle(table: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(table))


def through_a_file(table: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(table, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES = [copy.deepcopy, through_pickle, through_a_file]


@pytest.mark.parametrize("copied", COPIES)
def test_copies_learn_on_their_own(copied: Callable) -> None:
    rows = rows_of(9, 3)
    for table in (table_of(rows, padding_idx=1), cached_of(rows, padding_idx=1, rows=6)):
        plain = plain_of(rows, padding_idx=1)
        batches = zipf(9, 8, 5)
        learn(table, stepper_of(table), batches[:4])
        twin, before = copied(table), table.state_dict()["weight"].clone()
        assert twin.meter is not table.meter and repr(twin.meter) == repr(table.meter)
        learn(twin, stepper_of(twin), batches[4:])
        learn(plain, stepper_of(plain), batches)
        same(twin, plain)
        assert torch.equal(table.weight, before)


@pytest.mark.parametrize("make", [table_of, lambda rows: cached_of(rows, rows=6)])
def test_a_model_is_saved_while_a_batch_waits(make: Callable) -> None:
    table = make(rows_of(9, 3))
    for ids in Prefetcher(zipf(9, 3, 3), table):
        for copied in COPIES:
            same(copied(table), table)
        file = io.BytesIO()
        torch.save(table.state_dict(), file)
        stored = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        assert torch.equal(stored["weight"], table.weight)
        table(ids)


@pytest.mark.parametrize("make", [table_of, lambda rows: cached_of(rows, rows=2)])
def test_moving_changes_the_dtype_and_the_output_s_place_but_not_the_weight_s(make) -> None:
    table = make(rows_of(4, 2))
    parent = nn.Sequential(table, nn.Linear(2, 2))
    parent.double()
    assert table.weight.dtype == torch.float64 == parent(torch.tensor([1])).dtype
    table.to("meta")  # stands for a GPU, where there is none
    assert table.weight.device.type == "cpu" and table.device == torch.device("meta")
    table.half()
    assert table.device == torch.device("meta") and table.weight.dtype == torch.float16
    assert table.weight.device.type == "cpu"
    table.device = None
    assert table.cpu().device is None
    assert table.to(torch.float32)(torch.tensor([3])).dtype == torch.float32
    assert table_of(rows_of(4, 2), device="cpu").half().device == torch.device("cpu")


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


# --- The meter --------------------------------------------------------------------------------


@given(look_ups())
@SETTINGS
def test_the_meter_counts_what_the_formula_says(case: tuple) -> None:
    rows, several, options = case
    table, row = table_of(rows, **options), rows.shape[1] * rows.element_size()
    for ids in several:
        U = len(ids.unique())
        table.meter.reset()
        table.weight.grad = None
        loss = loss_of(table(ids))
        assert table.meter.to_device == U * row
        assert table.meter.to_host == U * ids.element_size()
        loss.backward()
        assert table.meter.to_device == U * row
        assert table.meter.to_host == U * (ids.element_size() + row)


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


def test_an_optimizer_that_may_change_every_row_has_all_fetched_again() -> None:
    V, D, batches = 40, 3, [torch.arange(k, k + 6) for k in range(0, 36, 6)]
    table = table_of(rows_of(V, D))
    sgd = torch.optim.SGD([table.weight], lr=0.1, momentum=0.9)
    learn(table, sgd, Prefetcher(batches, table, optimizer=sgd))
    U = 6 * len(batches)
    assert table.meter.to_device == U * (D * 4 + 2) + (U - 6) * D * 4


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


def test_a_meter_may_be_shared() -> None:
    meter = Meter()
    one, other = (table_of(rows_of(4, 2), meter=meter) for _ in range(2))
    one(torch.tensor([1])), other(torch.tensor([1, 2]))
    assert (meter.to_device, meter.to_host) == (3 * 8, 3 * 8)
    assert repr(meter) == "Meter(to_device=24, to_host=24)"
    meter.reset()
    assert meter.to_device == meter.to_host == 0


# --- Optimizers, and rows fetched ahead -------------------------------------------------------

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
def test_an_optimizer_steps_the_table_as_it_steps_the_plain_module(name: str, told: str) -> None:
    plain, its, table, ours = trainers(name)
    batches = zipf(30, 40, 6)
    learn(plain, its, batches)
    ahead = Prefetcher(batches, table, optimizer=ours if told == "told" else None)
    learn(table, ours, batches if told == "no prefetcher" else ahead)
    same(table, plain)


def unruly(table: nn.Embedding, stepper: Any, batches: Iterable[Tensor]) -> None:
    """Training with all that may happen between two batches."""
    saved = copy.deepcopy(table.state_dict())
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


def copies(batches: list[Tensor]) -> list[Tensor]:
    return [ids.clone() for ids in batches]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_row_is_served_stale_whatever_happens_between_batches(name: str) -> None:
    plain, its, table, ours = trainers(name)
    batches = zipf(30, 45, 6)
    unruly(plain, its, copies(batches))
    unruly(table, ours, Prefetcher(copies(batches), table, optimizer=ours))
    same(table, plain)


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("rows", [30, 18])
def test_a_cache_goes_through_the_same(prefetch: bool, rows: int) -> None:
    plain, its, table, _ = trainers("SGD")
    cached, batches = cached_of(table.weight.detach(), rows=rows), zipf(30, 45, 6)
    unruly(plain, its, copies(batches))
    ahead = copies(batches)
    unruly(cached, cached, Prefetcher(ahead, cached) if prefetch else ahead)
    same(cached, plain)


def test_a_table_whose_weight_is_replaced_is_not_served_from_the_old_one() -> None:
    rows, new = rows_of(20, 2), rows_of(20, 2, seed=1)
    for table in (table_of(rows), cached_of(rows, rows=16)):
        for k, ids in enumerate(Prefetcher(torch.arange(20).split(4), table)):
            if k == 2:
                table.load_state_dict({"weight": new.clone()}, assign=True)
            if k == 4:
                table.weight = nn.Parameter(rows.clone())
            assert torch.equal(table(ids), (new if 2 <= k < 4 else rows)[ids])


REPLACED = {
    "rows": lambda table, new: table.load_state_dict({"weight": new}),
    "weight": lambda table, new: table.load_state_dict({"weight": new}, assign=True),
    "dtype": lambda table, new: table.double(),
    "state": lambda table, new: table.load_optimizer_state({"sum": new * new}),
    "copy": lambda table, new: copy.deepcopy(table),
}


@pytest.mark.parametrize("what", REPLACED)
def test_a_prefetcher_that_comes_in_between_caches_nothing_that_is_being_replaced(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, new, ids = rows_of(20, 2), rows_of(20, 2, seed=1), torch.arange(4)
    table = cached_of(rows, rows=16, update="adagrad")
    worker, close = threading.Thread(target=table._fetch, args=[ids]), CachedEmbedding.close

    def close_and_be_slow(self: CachedEmbedding) -> None:
        close(self)
        if worker.ident is None:
            worker.start()
            worker.join(0.2)  # it has to wait, for longer than this

    monkeypatch.setattr(CachedEmbedding, "close", close_and_be_slow)
    done = REPLACED[what](table, new.clone())
    worker.join()
    if what == "copy":
        table = done
        assert table._cache is None
    wanted = new if what in ("rows", "weight") else rows
    state = new * new if what == "state" else torch.zeros_like(new)
    plain, out = plain_of(wanted.to(table.weight.dtype)), table(ids)
    assert torch.equal(out, plain(ids))
    adagrad = torch.optim.Adagrad(plain.parameters(), lr=0.1)
    adagrad.state[plain.weight]["sum"].copy_(state)
    for it, stepper in ((plain, adagrad), (table, table)):
        it(ids).sum().backward()
        stepper.step()
    assert torch.allclose(table.weight, plain.weight)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_weight_at_the_address_of_one_that_is_gone_is_another(kind: int) -> None:
    ids = torch.arange(4)
    table = kinds_of_table(rows_of(20, 2))[kind]
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


def kinds_of_table(rows: Tensor) -> list[OffloadedEmbedding]:
    return [table_of(rows), cached_of(rows, rows=14)]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_loop_may_be_left_and_training_goes_on(kind: int) -> None:
    rows, batches = rows_of(20, 2), zipf(20, 20, 5)
    plain, table = plain_of(rows), kinds_of_table(rows)[kind]
    stepper = stepper_of(table)
    learn(plain, stepper_of(plain), batches[:8] + batches[7:])
    for k, ids in enumerate(Prefetcher(batches, table, optimizer=None if kind else stepper)):
        learn(table, stepper, [ids])
        if k == 7:
            break
    assert leftovers() == (0, 0, 0) and table._ahead is None
    with pytest.raises(KeyError):
        for _ in Prefetcher(batches, table):
            raise KeyError
    assert leftovers() == (0, 0, 0) and table._ahead is None
    learn(table, stepper, Prefetcher(batches[7:], table))
    same(table, plain)
    assert leftovers() == (0, 0, 0)


@pytest.mark.parametrize("kind", [0, 1])
def test_what_came_before_an_error_of_the_iterator_is_still_handed_out(kind: int) -> None:
    table, batches = kinds_of_table(rows_of(20, 2))[kind], zipf(20, 3, 5)

    def failing() -> Iterator[Tensor]:
        yield from batches
        raise OSError("no more")

    seen = []
    with pytest.raises(OSError, match="no more"):
        for ids in Prefetcher(failing(), table):
            seen.append(table(ids))
    assert len(seen) == 3 and leftovers() == (0, 0, 0)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("bad", [0, 3])
def test_wrong_ids_raise_when_their_batch_is_due(kind: int, bad: int) -> None:
    rows, batches = rows_of(20, 2), zipf(20, 8, 5)
    plain, table = plain_of(rows), kinds_of_table(rows)[kind]
    stepper = stepper_of(table)
    ahead = iter(Prefetcher([*batches[:bad], torch.tensor([1, 20]), *batches[bad:]], table))
    learn(table, stepper, itertools.islice(ahead, bad))
    with pytest.raises(IndexError, match="index out of range in self"):
        next(ahead)
    learn(table, stepper, Prefetcher(batches[bad:], table))
    learn(plain, stepper_of(plain), batches)
    same(table, plain)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("batches", [0, 1])
def test_few_batches(kind: int, batches: int) -> None:
    table = kinds_of_table(rows_of(20, 2))[kind]
    ahead = Prefetcher(iter(zipf(20, 2, 5)[:batches]), table)
    assert len([table(ids) for ids in ahead]) == batches
    assert list(ahead) == []


def test_batches_of_any_kind_and_prefetchers_in_each_other() -> None:
    rows = rows_of(20, 2)
    for table in kinds_of_table(rows):
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
    for table in kinds_of_table(rows):
        with torch.inference_mode():
            for ids in Prefetcher(copies(zipf(20, 5, 4)), table):
                assert ids.is_inference() and torch.equal(table(ids), rows[ids])


@pytest.mark.parametrize("kind", [0, 1])
def test_an_error_leaves_nothing_for_the_garbage_collector(kind: int) -> None:
    table = kinds_of_table(rows_of(20, 2))[kind]

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


# --- The cache against nn.Embedding -----------------------------------------------------------


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


def test_training_resumes_exactly_from_state_dict_and_optimizer_state() -> None:
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
        with pytest.raises(RuntimeError, match="5 rows cannot hold .* more rows, or smaller batch"):
            cached(torch.arange(6, 12))
    same(cached, plain)
    with pytest.raises(RuntimeError, match="needs room for two"):
        learn(cached, cached, Prefetcher(torch.arange(20).split(4), cached))
    learn(plain, stepper_of(plain), [torch.arange(4)])  # the one that was handed out
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


# --- Faults -----------------------------------------------------------------------------------


class FaultError(Exception):
    """Raised on purpose."""


class Faulty:
    """A function that fails on its n-th call, before or after it has done its work."""

    def __init__(self, real: Callable, n: int, after: bool) -> None:
        self.real, self.left, self.after = real, n, after

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise FaultError
        result = self.real(*args, **options)
        if self.left == 0:
            raise FaultError
        return result


def retried(action: Callable) -> None:
    try:
        action()
    except FaultError:
        action()


FAULT_BATCHES = [torch.tensor(ids) for ids in ([0, 1, 4], [4, 5, 6], [6, 7, 0])]
FAULT_ROWS = rows_of(9, 2, torch.float64)


def retrying(table: nn.Embedding, stepper: Any) -> None:
    """The training of the tests below. A batch that fails is looked up again, a step made again."""

    def look_up(ids: Tensor) -> None:
        stepper.zero_grad()
        loss_of(table(ids)).backward()
        loss_of(table(ids[:1])).backward()

    for ids in FAULT_BATCHES:
        retried(lambda ids=ids: look_up(ids))
        retried(stepper.step)


def retrying_ahead(table: nn.Embedding, stepper: Any) -> None:
    """The same through a prefetcher, whose own faults end its loop: the rest begins a new one."""
    left, ahead = list(FAULT_BATCHES), iter(())
    while left:
        ids = None
        try:
            ids = next(ahead, None)
        except FaultError:
            pass
        if ids is None:
            optimizer = None if table is stepper else stepper
            ahead = iter(Prefetcher(list(left), table, optimizer=optimizer))
            continue
        retried(lambda ids=ids: learn_without_step(table, stepper, ids))
        retried(stepper.step)
        del left[0]


def learn_without_step(table: nn.Embedding, stepper: Any, ids: Tensor) -> None:
    stepper.zero_grad()
    loss_of(table(ids)).backward()


def undisturbed(update: str, run: Callable, **options: Any) -> tuple[nn.Embedding, Any]:
    plain = plain_of(FAULT_ROWS, **options)
    stepper = stepper_of(plain, update)
    if run is retrying_ahead:
        learn(plain, stepper, FAULT_BATCHES)
    else:
        retrying(plain, stepper)
    return plain, stepper


OWN = ["to_device", "to_host", "_take", "_beside_each_other"]
METHODS = ["index_copy_", "index_select", "unique", "split"]


@pytest.mark.parametrize(
    ("run", "after"), [(retrying, False), (retrying, True), (retrying_ahead, False)]
)
@pytest.mark.parametrize("kind", ["adagrad", "offloaded"])
def test_a_fault_in_any_operation_loses_nothing(kind, run, after, monkeypatch) -> None:
    update = "adagrad" if kind == "adagrad" else "sgd"
    (plain, its), faults = undisturbed(update, run), 0
    for owner, name in [(offload, n) for n in OWN] + [(Tensor, n) for n in METHODS]:
        for n in itertools.count(1):
            table = table_of(FAULT_ROWS)
            if kind != "offloaded":
                table = cached_of(FAULT_ROWS, rows=6, update=update)
            stepper = stepper_of(table, update)
            faulty = Faulty(getattr(owner, name), n, after)
            with monkeypatch.context() as m:
                m.setattr(owner, name, lambda *a, f=faulty, **o: f(*a, **o))
                run(table, stepper)
            same(table, plain)
            if kind == "adagrad":
                same_sum(table, its)
            if faulty.left > 0:
                break
        faults += n - 1
    assert faults > 15


@functools.cache
def is_a_with(line: int) -> bool:
    return linecache.getline(offload.__file__, line).lstrip().startswith("with ")


class FaultAt:
    """Raises at the n-th line that is run in helpers/offload.py: as Ctrl-C may, anywhere.

    But on the line of a `with`: Python lets nothing come between a block's end and its lock's.
    """

    def __init__(self, n: int) -> None:
        self.n, self.lines = n, []

    def __call__(self, frame: FrameType, event: str, arg: object) -> "FaultAt | None":
        if frame.f_code.co_filename != offload.__file__:
            return None
        if event == "line" and not is_a_with(frame.f_lineno):
            self.lines.append(frame.f_lineno)
            if len(self.lines) == self.n:
                raise FaultError(f"line {frame.f_lineno}")
        return self

    def during(self, action: Callable) -> None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            action()
        finally:
            sys.settrace(before)


def with_a_fault_at_each_line(life: Callable[[FaultAt], None]) -> int:
    """Live it again for each line that it runs: with a fault at the line's first and last time."""
    rehearsal = FaultAt(0)
    life(rehearsal)
    last = {line: n for n, line in enumerate(rehearsal.lines, 1)}
    first = {line: n for n, line in reversed([*enumerate(rehearsal.lines, 1)])}
    for n in sorted({*first.values(), *last.values()}):
        life(FaultAt(n))
    return len(last)


def test_a_fault_at_any_line_of_a_cache_loses_nothing() -> None:
    options = {"padding_idx": 4, "max_norm": 1.5}
    plain, its = undisturbed("adagrad", retrying, **options)

    def life(fault: FaultAt) -> None:
        cached = cached_of(FAULT_ROWS, rows=5, update="adagrad", **options)
        fault.during(lambda: retrying(cached, cached))
        same(cached, plain)
        same_sum(cached, its)

    assert with_a_fault_at_each_line(life) > 100


@pytest.mark.parametrize(("update", "read"), [("sgd", True), ("adagrad", True), ("sgd", False)])
def test_a_step_is_made_wholly_or_not_at_all(update: str, read: bool) -> None:
    plain = plain_of(FAULT_ROWS)
    stepper, moments = stepper_of(plain, update), [plain.weight.detach().clone()]
    for ids in FAULT_BATCHES:
        learn(plain, stepper, [ids])
        moments.append(plain.weight.detach().clone())

    def life(fault: FaultAt) -> None:
        cached = cached_of(FAULT_ROWS, rows=5, update=update)
        for k, ids in enumerate(FAULT_BATCHES):
            learn_without_step(cached, cached, ids)
            try:
                fault.during(cached.step)
            except FaultError as error:
                made = not cached._learning[0]  # what is forgotten is made
                weight = cached.state_dict()["weight"] if read else moments[k + made]
                assert torch.allclose(weight, moments[k + made]), error
                if made:  # and the next look-up knows
                    continue
                cached.step()
        same(cached, plain)

    assert with_a_fault_at_each_line(life) > 20


def test_a_fault_while_a_step_fetches_its_rows_again_loses_nothing() -> None:
    batches = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])]
    plain = plain_of(FAULT_ROWS)
    [loss_of(plain(ids)).backward() for ids in batches]
    stepper_of(plain).step()

    def life(fault: FaultAt) -> None:
        cached = cached_of(FAULT_ROWS, rows=5, counts=torch.arange(9))
        [loss_of(cached(ids)).backward() for ids in batches]
        cached.close()
        with torch.no_grad():
            cached(torch.arange(5, 9))  # so that there is something to evict
        fault.during(lambda: retried(cached.step))
        same(cached, plain)

    assert with_a_fault_at_each_line(life) > 60


LIFE = {
    "close": lambda table: table.close(),
    "state_dict": lambda table: table.state_dict(),
    "double": lambda table: table.double(),
    "optimizer_state": lambda table: table.load_optimizer_state(table.optimizer_state()),
    "load": lambda table: table.load_state_dict(table.state_dict()),
}


@pytest.mark.parametrize("what", LIFE)
def test_a_fault_while_rows_come_home_loses_nothing(what: str) -> None:
    plain, its = undisturbed("adagrad", retrying_ahead)

    def life(fault: FaultAt) -> None:
        cached = cached_of(FAULT_ROWS, rows=5, update="adagrad")
        learn(cached, cached, FAULT_BATCHES[:1])
        learn_without_step(cached, cached, FAULT_BATCHES[1])
        with contextlib.suppress(FaultError):
            fault.during(lambda: LIFE[what](cached))
        cached(FAULT_BATCHES[0]), cached.step()
        learn(cached, cached, FAULT_BATCHES[2:])
        same(cached, plain)
        same_sum(cached, its)

    assert with_a_fault_at_each_line(life) > 10


# --- Threads ----------------------------------------------------------------------------------


def late(real: Callable, seed: int) -> Callable:
    """The same function, that takes its time: at random, up to a millisecond."""
    waits = torch.rand(997, generator=torch.Generator().manual_seed(seed)).tolist()
    turn = itertools.count()

    def waiting(*args: Any) -> Any:
        time.sleep(waits[next(turn) % 997] / 1000)
        result = real(*args)
        time.sleep(waits[next(turn) % 997] / 1000)
        return result

    return waiting


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("update", ["offloaded", "sgd", "adagrad"])
def test_threads_that_meet_at_any_moment(update: str, seed: int, monkeypatch) -> None:
    V, batches = 40, zipf(40, 45, 5, seed)
    rows = rows_of(V, 2, torch.float64)
    plain, kind = plain_of(rows), "adagrad" if update == "adagrad" else "sgd"
    table = table_of(rows) if update == "offloaded" else cached_of(rows, rows=20, update=kind)
    its, ours = stepper_of(plain, kind), stepper_of(table, kind)

    def busy_body(table: nn.Embedding, stepper: Any, batches: Iterable[Tensor]) -> None:
        for k, ids in enumerate(batches):
            stepper.zero_grad()
            if k % 3 == 0:
                with torch.no_grad():
                    table(ids.flip(0)[:3] % 7)
            loss_of(table(ids)).backward()
            if k % 4 == 1:
                table.state_dict()
            if k % 5 == 2:
                loss_of(table(ids[:2])).backward()
            stepper.step()
            if k % 7 == 3:
                with torch.no_grad():
                    table.weight[k % V] += 1
            if k % 8 == 5 and isinstance(table, CachedEmbedding):
                table.flush() if k % 3 else table.close()

    busy_body(plain, its, batches)
    for name in ("_take", "to_host", "to_device"):
        monkeypatch.setattr(offload, name, late(getattr(offload, name), seed))
    given_to = ours if update == "offloaded" else None
    busy_body(table, ours, Prefetcher(batches, table, optimizer=given_to))
    same(table, plain)


def test_a_write_by_hand_is_not_undone_by_an_eviction_under_way(monkeypatch) -> None:
    """The other thread evicts row 0 while this one, having read the weight, writes it."""
    cached = cached_of(torch.zeros(8, 1), rows=4)
    writing, evicting = threading.Event(), threading.Event()
    real = offload.to_host

    def waits(tensor: Tensor, meter: Meter) -> Tensor:
        if threading.current_thread().name.startswith("prefetch") and gate:
            evicting.set()
            writing.wait(1)
        return real(tensor, meter)

    gate: list[int] = []
    monkeypatch.setattr(offload, "to_host", waits)
    learn(cached, cached, [torch.tensor([0, 1])])
    weight = cached.weight  # all is written back
    for k, ids in enumerate(Prefetcher([torch.tensor([2, 3]), torch.tensor([4, 5])], cached)):
        if k == 0:
            gate.append(1)
            evicting.wait(0.2)
            with torch.no_grad():
                weight[0] = 7
            writing.set()
        with torch.no_grad():
            cached(ids)
        gate.clear()
    assert cached.weight[0].item() == 7


def test_nothing_is_kept_alive() -> None:
    for table in kinds_of_table(rows_of(20, 2)):
        learn(table, stepper_of(table), Prefetcher(zipf(20, 5, 4), table))
        assert table._ahead is None and table._busy() == []


# --- On a GPU ---------------------------------------------------------------------------------


def tables_on_gpu(rows: Tensor) -> list[OffloadedEmbedding]:
    return [
        table_of(rows, device="cuda"),
        cached_of(rows, rows=16, device="cuda"),
        cached_of(rows, rows=16, update="adagrad", device="cuda"),
    ]


@ON_GPU
def test_the_output_lands_where_it_is_wanted() -> None:
    rows, ids = rows_of(9, 2), torch.tensor([[1, 2], [1, 8]])
    assert table_of(rows)(ids).device.type == "cpu"
    assert table_of(rows)(ids.cuda()).device.type == "cuda"
    assert table_of(rows, device="cuda")(ids).device.type == "cuda"
    assert table_of(rows, device="cpu")(ids.cuda()).device.type == "cpu"
    table = table_of(rows).to("cuda").half()
    out = table(ids)
    assert out.device.type == "cuda" and table.weight.device.type == "cpu"
    assert torch.equal(out.cpu(), rows.half()[ids])
    out.sum().backward()
    assert table.weight.grad.device.type == "cpu" and table.weight.grad._nnz() == 3
    assert table.cpu()(ids).device.type == "cpu"
    assert table.to("cuda", torch.float64)(ids).dtype == torch.float64


@ON_GPU
def test_a_state_on_a_gpu_comes_to_the_host() -> None:
    rows = rows_of(9, 2)
    for table in (table_of(rows, freeze=True), cached_of(rows, freeze=True, rows=3)):
        table.load_state_dict({"weight": rows.cuda() + 1}, assign=True)
        assert table.weight.device.type == "cpu" and not table.weight.requires_grad
        assert torch.equal(table(torch.tensor([2])), rows[2:3] + 1)


@ON_GPU
@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
@pytest.mark.parametrize("out_on", ["cpu", "cuda"])
def test_the_meter_with_ids_on_either_side(ids_on: str, out_on: str) -> None:
    table = table_of(rows_of(9, 2), device=out_on)
    ids = torch.tensor([1, 2, 1, 8], device=ids_on)
    loss_of(table(ids)).backward()
    N, U, row = 4 * 8, 3, 2 * 4
    there = N if (ids_on, out_on) == ("cpu", "cuda") else 0
    back = N if (ids_on, out_on) == ("cuda", "cpu") else 0
    assert table.meter.to_device == U * row + there
    assert table.meter.to_host == U * 8 + U * row + back


@ON_GPU
@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
def test_the_meter_of_a_cache_on_a_gpu(ids_on: str) -> None:
    cached = cached_of(rows_of(9, 2), rows=3, device="cuda")
    for ids, M, E in (([1, 2, 1], 2, 0), ([2, 5, 6], 2, 1)):
        cached.meter.reset()
        loss_of(cached(torch.tensor(ids, device=ids_on))).backward()
        cached.step()
        assert cached.meter.to_device == M * 8 + (3 * 8 if ids_on == "cpu" else 0)
        assert cached.meter.to_host == M * 8 + E * (8 + 8) + (0 if ids_on == "cpu" else 2 * 8)


@ON_GPU
@pytest.mark.parametrize(
    "ids", [torch.tensor([9]), torch.tensor([-1]), torch.tensor([1.0])], ids=str
)
@pytest.mark.parametrize("on", ["cpu", "cuda"])
def test_wrong_ids_raise_on_the_host_and_the_gpu_lives(ids: Tensor, on: str) -> None:
    with pytest.raises(Exception) as expected:
        nn.Embedding(9, 2)(ids)
    for table in tables_on_gpu(rows_of(9, 2)):
        with pytest.raises(expected.type) as error:
            table(ids.to(on))
        assert str(error.value) == str(expected.value)
        assert table(torch.tensor([1], device=on)).isfinite().all()
        torch.cuda.synchronize()


@ON_GPU
@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
def test_training_on_a_gpu_is_the_same(kind: int, prefetch: bool, ids_on: str) -> None:
    rows, batches = rows_of(60, 4), zipf(60, 80, 6)
    table = tables_on_gpu(rows)[kind]
    update = "adagrad" if kind == 2 else "sgd"
    plain, stepper = plain_of(rows), stepper_of(table, update)
    learn(plain, stepper_of(plain, update), batches)
    moved = [ids.to(ids_on) for ids in batches]
    ahead = Prefetcher(moved, table, optimizer=None if kind else stepper)
    learn(table, stepper, ahead if prefetch else moved)
    torch.testing.assert_close(table.weight, plain.weight, atol=1e-4, rtol=1e-4)
    assert table.weight.device.type == "cpu" and leftovers() == (0, 0, 0)


@ON_GPU
@pytest.mark.parametrize("kind", range(3))
def test_streams_that_meet_at_any_moment(kind: int) -> None:
    """Look-ups that were not fetched ahead, beside a fetch on another stream, with a busy GPU."""
    rows, batches = rows_of(400, 64), zipf(400, 60, 24)
    table = [
        table_of(rows, device="cuda"),
        cached_of(rows, rows=120, device="cuda"),
        cached_of(rows, rows=120, update="adagrad", device="cuda"),
    ][kind]
    update, heavy = "adagrad" if kind == 2 else "sgd", torch.randn(3000, 3000, device="cuda")

    def train(table: nn.Embedding, stepper: Any, batches: Iterable[Tensor], work: Callable) -> None:
        for k, ids in enumerate(batches):
            stepper.zero_grad()
            work()
            with torch.no_grad():
                seen = table((ids * 7 + k) % 400)
            work()
            (loss_of(table(ids)) + loss_of(table((ids + 31) % 400)) + 0 * seen.sum()).backward()
            stepper.step()

    plain, stepper = plain_of(rows), stepper_of(table, update, lr=0.1)
    train(plain, stepper_of(plain, update), batches, lambda: None)
    ahead = Prefetcher(batches, table, optimizer=None if kind else stepper)
    train(table, stepper, ahead, lambda: heavy @ heavy)
    torch.testing.assert_close(table.weight, plain.weight, atol=1e-3, rtol=1e-3)
