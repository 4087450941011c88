"""OffloadedEmbedding does what nn.Embedding does."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from host_tables import (
    KINDS,
    SETTINGS,
    TOLERANCE,
    cached_of,
    learn,
    look_ups,
    loss_of,
    plain_of,
    rows_of,
    same,
    stepper_of,
    table_of,
    zipf,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from helpers.offload import CachedEmbedding, Meter, OffloadedEmbedding, Prefetcher, crossing


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
def test_the_sparse_gradient_is_coalesced(case: tuple) -> None:
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
def test_wrong_ids_before_anything_crosses(kind, ids, monkeypatch):
    others = {"rows": 3, "lr": 0.1} if kind is CachedEmbedding else {}
    table = kind(5, 2, **others)
    with pytest.raises(Exception) as expected:
        nn.Embedding(5, 2)(ids)
    # Where the ids are to go elsewhere, they are looked at first.
    monkeypatch.setattr(crossing, "gathered", None)
    monkeypatch.setattr(crossing, "to_device", None)
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
def test_wrong_ids_with_max_norm_write_nothing(ids) -> None:
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


def test_from_pretrained_shares_and_freezes() -> None:
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


@pytest.mark.parametrize("make", [table_of, lambda rows: cached_of(rows, rows=2)])
def test_moving_leaves_the_weight_on_the_host(make) -> None:
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


# --- Weights that are no plain parameter ------------------------------------------------------


def reparametrized(table: nn.Embedding, how: str) -> nn.Embedding:
    if how == "attribute":
        weight = table.weight.detach().clone().requires_grad_()
        del table.weight
        table.weight = weight
        return table
    if how == "pruned":
        return prune.l1_unstructured(table, "weight", amount=3)
    if how == "old weight_norm":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return nn.utils.weight_norm(table)
    torch.manual_seed(0)
    return getattr(nn.utils.parametrizations, how)(table)


HOW = ["attribute", "pruned", "old weight_norm", "weight_norm", "spectral_norm"]


@pytest.mark.parametrize("how", HOW)
def test_any_weight_that_the_plain_module_takes(how: str) -> None:
    ids, outs, weights = torch.tensor([1, 2, 2]), [], []
    for make in (plain_of, table_of):
        table = reparametrized(make(rows_of(5, 3), sparse=False), how).double()
        params = list(table.parameters()) or [table.weight]
        for _ in range(2):
            out = table(ids)
            out.square().sum().backward()
            torch.optim.SGD(params, lr=0.1).step()
        outs.append(out)
        weights.append(params[0])
        assert table.weight.device.type == "cpu"
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("how", HOW[1:])
def test_a_computed_weight_is_refused(how: str) -> None:
    with pytest.raises(TypeError, match="no plain nn.Parameter"):
        Prefetcher([], reparametrized(table_of(rows_of(5, 3), sparse=False), how))
    with pytest.raises(TypeError, match="no plain nn.Parameter"):
        reparametrized(cached_of(rows_of(5, 3), rows=4), how)(torch.tensor([1]))


# --- Gradients of gradients -------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}], ids=["", "padding"])
def test_a_gradient_penalty_is_right(options: dict, sparse: bool) -> None:
    ids, found = torch.tensor([1, 2, 2, 4]), []
    for make in (plain_of, table_of):
        torch.manual_seed(0)
        table, layer = make(rows_of(5, 3, torch.float64), sparse=sparse, **options), nn.Linear(3, 1)
        layer.double()
        loss = layer(table(ids)).tanh().pow(2).sum()
        gradients = torch.autograd.grad(
            loss, [table.weight, *layer.parameters()], create_graph=True
        )
        penalty = sum(g.to_dense().square().sum() if g.is_sparse else g.square().sum()
                      for g in gradients)  # fmt: skip
        found.append(torch.autograd.grad(penalty, layer.parameters()))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
        assert plain.abs().max() > 0


def test_a_hessian_is_right() -> None:
    ids, weight = torch.tensor([1, 2, 2]), rows_of(3, 2, torch.float64)

    def loss(table: nn.Embedding) -> Callable:
        return lambda w: torch.func.functional_call(table, {"weight": w}, ids).pow(3).sum()

    hessians = [torch.autograd.functional.hessian(loss(make(weight, sparse=False)), weight)
                for make in (plain_of, table_of)]  # fmt: skip
    torch.testing.assert_close(*hessians)
    assert hessians[0].abs().max() > 0


def test_a_cache_refuses_gradients_of_gradients() -> None:
    cached = cached_of(rows_of(4, 2), rows=4)
    loss = cached(torch.tensor([1])).pow(3).sum()
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        loss.backward(create_graph=True)


# --- Meta -------------------------------------------------------------------------------------


@KINDS
def test_the_weight_has_numbers_whatever_is_said_of_meta(make: Callable) -> None:
    rows, ids = rows_of(4, 2), torch.tensor([[1, 2]])
    with torch.device("meta"):
        made = OffloadedEmbedding(4, 2)
    assert made(ids).isfinite().all()
    table = make(rows)
    for change in (lambda: table.to("meta"), lambda: table.to_empty(device="meta")):
        change()
        assert table.device == torch.device("meta") and table(ids).shape == (1, 2, 2)
        assert table(ids).is_meta and torch.equal(table.weight, rows)
    table.device = None
    assert torch.equal(table(ids), rows[ids])
    assert OffloadedEmbedding(4, 2, device="meta")(ids).is_meta


@KINDS
def test_a_weight_without_numbers_is_refused(make: Callable) -> None:
    table, ids, empty = make(rows_of(4, 2)), torch.tensor([1]), torch.empty(4, 2, device="meta")
    for assign in (False, True):
        with pytest.raises(ValueError, match="on meta, without numbers"):
            table.load_state_dict({"weight": empty}, assign=assign)
    assert torch.equal(table(ids), rows_of(4, 2)[ids])
    with pytest.raises(ValueError, match="on meta, without numbers"):
        OffloadedEmbedding.from_pretrained(empty)
    with pytest.raises(ValueError, match="of layout torch.sparse_coo"):
        OffloadedEmbedding.from_pretrained(rows_of(4, 2).to_sparse())


# --- Conversion that swaps tensors ------------------------------------------------------------


@pytest.fixture
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@KINDS
def test_weights_may_be_swapped_on_conversion(make: Callable, swapping: None) -> None:
    rows, new, batches = rows_of(9, 2), rows_of(9, 2, seed=1), zipf(9, 6, 3)
    plain, table = plain_of(rows), make(rows)
    for change in (
        lambda table: table.double(),
        lambda table: table.load_state_dict({"weight": new}),
        lambda table: table.float(),
    ):
        for one in (plain, table):
            change(one)
            one.zero_grad()
            learn(one, stepper_of(one), batches)
        same(table, plain)
    with pytest.warns(UserWarning, match="not asked for"):
        for k, ids in enumerate(Prefetcher(batches, table)):
            if k == 1:
                table.double()  # after these ids' rows were fetched as floats
            if k != 3:
                assert table(ids).dtype == table.weight.dtype
                assert torch.equal(table(ids), table.weight[ids])
