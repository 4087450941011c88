"""What else a training program is made of, with a table on the host: the entries of "what works".

(Weights that are no plain parameter, meta, swapped parameters and copies are in test_table, several
tables in test_prefetch, several processes in test_processes.)
"""

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from host_tables import (
    KINDS,
    cached_of,
    learn,
    loss_of,
    plain_of,
    rows_of,
    same,
    small_cache_of,
    stepper_of,
    table_of,
    zipf,
)
from torch import Tensor, nn
from torch.autograd import functional as af
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import ExponentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from helpers.offload import CachedEmbedding, Prefetcher

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning",  # PyTorch's own, where it compiles
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore:This process .* is multi-threaded:DeprecationWarning",  # Python 3.12's, where it forks
)

ROWS = rows_of(20, 3)
IDS = torch.tensor([[1, 4, 4], [2, 0, 1]])
BATCHES = zipf(20, 8, 6)
dense_of, dense_table_of = partial(plain_of, sparse=False), partial(table_of, sparse=False)


def net_of() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 2)


# --- Ways to train: functions of a table and of what steps it (a cached table is its own) ---------


def train(
    table: nn.Embedding,
    stepper: Any,
    loss: Callable[[Tensor], Tensor] | None = None,
    between: Callable[[list], Any] = len,
) -> None:
    for ids in BATCHES:
        stepper.zero_grad()
        (loss_of(table(ids)) if loss is None else loss(ids)).backward()
        between(stepper.param_groups[0]["params"])
        stepper.step()


def autocast(table: nn.Embedding, stepper: Any) -> None:
    net = net_of()

    def loss(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            rows = table(ids)
            out = net(rows)
        assert rows.dtype == torch.float32 and out.dtype == torch.bfloat16
        return loss_of(out.float())

    train(table, stepper, loss)


def grad_scaler(table: nn.Embedding, stepper: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for k, ids in enumerate(BATCHES):
        before = table.weight.detach().clone()
        loss = loss_of(table(ids))
        scaler.scale(loss * torch.inf if k == 3 else loss).backward()
        if k % 2:
            scaler.unscale_(stepper)
            clip_grad_norm_(stepper.param_groups[0]["params"], 0.5)
        scaler.step(stepper)
        scaler.update()
        stepper.zero_grad()
        assert torch.equal(before, table.weight) == (k == 3)
    assert scaler.get_scale() == 4


def accumulation(table: nn.Embedding, stepper: Any) -> None:
    """Of two batches each; one pair is forgotten."""
    for k, ids in enumerate(BATCHES):
        (loss_of(table(ids)) / 2).backward()
        if k % 2:
            if k != 3:
                stepper.step()
            stepper.zero_grad()


def scheduled(table: nn.Embedding, stepper: Any) -> None:
    """By the schedule of the optimizer that steps the rest of the model."""
    rest = torch.optim.SGD(net_of().parameters(), lr=0.1)
    schedule = ExponentialLR(rest, 0.7)
    for ids in BATCHES:
        learn(table, stepper, [ids])
        rest.step()
        schedule.step()
        stepper.param_groups[0]["lr"] = schedule.get_last_lr()[0]


def rows_penalised(table: nn.Embedding, stepper: Any) -> None:
    """The rows that were looked up, and their gradient."""

    def loss(ids: Tensor) -> Tensor:
        rows = table(ids)
        loss = loss_of(rows) + 0.1 * rows.square().sum()
        (gradient,) = torch.autograd.grad(loss, rows, create_graph=True)
        return loss + 0.01 * gradient.square().sum()

    train(table, stepper, loss)


def checkpointed(table: nn.Embedding, stepper: Any, reentrant: bool) -> None:
    net, anchor = net_of(), torch.zeros((), requires_grad=True)

    def call(ids: Tensor, anchor: Tensor) -> Tensor:
        return net(table(ids)) + anchor

    kept = partial(checkpoint, call, use_reentrant=reentrant)
    train(table, stepper, lambda ids: loss_of(kept(ids, anchor)))


def compiled(table: nn.Embedding, stepper: Any, backend: str) -> None:
    model = torch.compile(nn.Sequential(table, net_of()), backend=backend)
    train(table, stepper, lambda ids: loss_of(model(ids[: 2 + ids[0] % 4])))


def compiled_with_backward(table: nn.Embedding, stepper: Any) -> None:
    backward = torch.compile(lambda ids: loss_of(table(ids)).backward(), backend="eager")
    for ids in BATCHES:
        stepper.zero_grad()
        backward(ids)
        stepper.step()


def workers(table: nn.Embedding, stepper: Any) -> None:
    loader = DataLoader(torch.stack(BATCHES), batch_size=2, num_workers=1)
    learn(table, stepper, loader if type(table) is nn.Embedding else Prefetcher(loader, table))


def shared(table: nn.Embedding, stepper: Any) -> None:
    train(table, stepper)
    assert table.share_memory() is table and table.weight.is_shared()
    train(table, stepper)


WAYS = {
    "autocast": autocast,
    "GradScaler": grad_scaler,
    "accumulation": accumulation,
    "clip_grad_norm_": partial(train, between=lambda params: clip_grad_norm_(params, 0.5)),
    "clip_grad_value_": partial(train, between=lambda params: clip_grad_value_(params, 0.1)),
    "scheduler": scheduled,
    "penalty on rows": rows_penalised,
    "checkpoint": partial(checkpointed, reentrant=False),
    "checkpoint, reentrant": partial(checkpointed, reentrant=True),
    "compile": partial(compiled, backend="eager"),
    "compile, aot": partial(compiled, backend="aot_eager"),
    "compile, with backward": compiled_with_backward,
    "DataLoader": workers,
    "share_memory": shared,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [dense_table_of, small_cache_of], ids=["offloaded", "cached"])
def test_as_the_plain_module(make: Callable, way: str) -> None:
    plain, table = dense_of(ROWS), make(ROWS)
    for one in (plain, table):
        torch._dynamo.reset()
        WAYS[way](one, stepper_of(one))
    same(plain, table)
    assert not torch.equal(plain.weight, ROWS)


# --- As nn.Embedding, or refused by a cached table ------------------------------------------------


def hooked(table: nn.Embedding, stepper: Any) -> None:
    table.weight.register_hook(lambda gradient: gradient * 2)
    train(table, stepper)


def stepped_in_backward(table: nn.Embedding, stepper: Any) -> None:
    def step(_: Tensor) -> None:
        stepper.step()
        stepper.zero_grad()

    table.weight.register_post_accumulate_grad_hook(step)
    for ids in BATCHES:
        loss_of(table(ids)).backward()


def penalised(table: nn.Embedding, stepper: Any) -> None:
    train(table, stepper, lambda ids: loss_of(table(ids)) + table.weight.square().mean())


def tied(table: nn.Embedding, stepper: Any) -> None:
    head = nn.Linear(3, 20, bias=False)
    head.weight = table.weight
    train(table, stepper, lambda ids: head(table(ids)).square().mean())


def maml(table: nn.Embedding, stepper: Any) -> None:
    def loss(ids: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(table(ids).pow(3).sum(), table.weight, create_graph=True)
        fast = {"weight": table.weight - 0.01 * gradient}
        return functional_call(table, fast, (ids,)).pow(3).sum()

    train(table, stepper, loss)


REFUSED = {
    hooked: "The weight itself has hooks",
    stepped_in_backward: "The weight itself has hooks",
    penalised: "The weight itself got a gradient",
    tied: "The weight itself got a gradient",
    maml: "no gradient of its gradient",
}
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 4}, {"scale_grad_by_freq": True}], ids=["", "padding", "freq"]
)


@pytest.mark.parametrize("way", REFUSED, ids=lambda way: way.__name__)
@OPTIONS
def test_as_the_plain_module_or_refused_by_a_cache(way: Callable, options: dict) -> None:
    plain, cached = dense_of(ROWS, **options), small_cache_of(ROWS, **options)
    way(plain, stepper_of(plain))
    for table in (table_of(ROWS, **options), dense_table_of(ROWS, **options)):
        way(table, stepper_of(table))
        same(plain, table)
    with pytest.raises(RuntimeError, match=REFUSED[way]):
        way(cached, cached)
    assert torch.equal(cached.weight, ROWS)


def cubes_of(table: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function of the weight, with second derivatives."""
    return lambda weight: functional_call(table, {"weight": weight}, (IDS,)).pow(3).sum()


TRANSFORMS = {
    "functional_call": lambda f: f(ROWS * 2),
    "grad": lambda f: grad(f)(ROWS).to_dense(),
    "grad of grad": lambda f: grad(lambda w: grad(f)(w).square().sum())(ROWS).to_dense(),
    "vjp": lambda f: vjp(f, ROWS)[1](torch.tensor(1.0))[0].to_dense(),
    "vhp": lambda f: af.vhp(f, ROWS, ROWS)[1].to_dense(),
    "hvp, dense": lambda f: af.hvp(f, ROWS, ROWS)[1],
    "hessian, dense": lambda f: af.hessian(f, ROWS),
    "jacrev of jacrev, dense": lambda f: jacrev(jacrev(f))(ROWS),
    "vmap of vjp, dense": lambda f: vmap(vjp(f, ROWS)[1])(torch.arange(3.0))[0],
}


@pytest.mark.parametrize("name", TRANSFORMS)
@OPTIONS
def test_functions_of_the_weight(name: str, options: dict) -> None:
    transform = TRANSFORMS[name]
    expected = transform(cubes_of(dense_of(ROWS, **options)))
    for make in (dense_table_of,) if name.endswith("dense") else (dense_table_of, table_of):
        torch.testing.assert_close(transform(cubes_of(make(ROWS, **options))), expected)
    with pytest.raises(TypeError, match="no plain nn.Parameter.*functional_call"):
        transform(cubes_of(small_cache_of(ROWS, **options)))


# --- Refused, or asked for in another way ---------------------------------------------------------

NESTED = torch.nested.nested_tensor([torch.tensor([1, 2]), IDS[1]], layout=torch.jagged)
EITHER = {
    "vmap over ids": (lambda table: vmap(table)(IDS), "vmap"),
    "nested ids": (lambda table: table(NESTED), "unique"),
    "fullgraph": (lambda table: torch.compile(table, fullgraph=True)(IDS), "skipped"),
    "fx": (torch.fx.symbolic_trace, "symbolically traced"),
    "jit": (torch.jit.script, "has no attribute"),
}
OFFLOADED = {
    "forward mode": (lambda table: jvp(cubes_of(table), (ROWS,), (ROWS,)), "forward mode"),
    "clip sparse": (lambda table: WAYS["clip_grad_norm_"](table, stepper_of(table)), "SparseCPU"),
}
CACHED = {"scheduler": (lambda table: ExponentialLR(table, 0.7), "not an Optimizer")}
REFUSALS = [(table_of, k) for k in {**EITHER, **OFFLOADED}]
REFUSALS += [(small_cache_of, k) for k in {**EITHER, **CACHED}]


@pytest.mark.parametrize(("make", "what"), REFUSALS)
def test_refused(make: Callable, what: str) -> None:
    table = make(ROWS)
    torch._dynamo.reset()
    call, said = {**EITHER, **OFFLOADED, **CACHED}[what]
    with pytest.raises((RuntimeError, TypeError, ValueError), match=said):
        call(table)
    assert torch.equal(table(IDS), ROWS[IDS])


class Tracer(torch.fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Embedding) or super().is_leaf_module(module, name)


@KINDS
def test_what_to_do_instead(make: Callable) -> None:
    model = nn.Sequential(make(ROWS), net_of())
    traced = torch.fx.GraphModule(model, Tracer().trace(model))  # the table is a leaf
    assert torch.equal(traced(IDS), model(IDS))
    rows = torch.nested.nested_tensor_from_jagged(model[0](NESTED.values()), NESTED.offsets())
    assert torch.equal(rows.unbind()[1], ROWS[IDS[1]])
    scaled = vmap(lambda scale: model[0](IDS) * scale)(torch.arange(3.0))  # one look-up for all
    assert torch.equal(scaled[2], ROWS[IDS] * 2)


@KINDS
def test_a_compiled_look_up_counts_the_same(make: Callable) -> None:
    one, other = make(ROWS), make(ROWS)
    torch._dynamo.reset()
    call = torch.compile(other, backend="aot_eager")
    train(one, stepper_of(one))
    train(other, stepper_of(other), lambda ids: loss_of(call(ids)))
    assert repr(one.meter) == repr(other.meter)


@KINDS
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_export(make: Callable, strict: bool) -> None:
    table, plain = make(ROWS), dense_of(ROWS)
    train(table, stepper_of(table))
    if isinstance(table, CachedEmbedding):
        with pytest.raises(RuntimeError, match=r"flush\(\) before export"):
            torch.export.export(table, (IDS,), strict=strict)
        table.flush()
    rows = ({0: torch.export.Dim("rows", min=1)},)
    exported = torch.export.export(table, (IDS,), dynamic_shapes=rows, strict=strict).module()
    more = torch.arange(12).view(4, 3)
    assert torch.equal(exported(more), table(more))
    train(table, stepper_of(table))
    [train(plain, stepper_of(plain)) for _ in range(2)]
    same(plain, table)


@pytest.mark.parametrize("how", ["SGD fused", "SGD foreach", "Adam fused", "AdamW foreach"])
@pytest.mark.parametrize("prefetch", [False, True], ids=["", "prefetched"])
def test_optimizers_of_dense_gradients(how: str, prefetch: bool) -> None:
    plain, table = dense_of(ROWS), dense_table_of(ROWS)
    kind, way = how.split()
    for one in (plain, table):
        optimizer = getattr(torch.optim, kind)([one.weight], 0.1, weight_decay=0.1, **{way: True})
        learn(one, optimizer, Prefetcher(BATCHES, one) if prefetch and one is table else BATCHES)
    same(plain, table)


@KINDS
def test_moving_averages(make: Callable) -> None:
    averages = []
    for table in (dense_of(ROWS), make(ROWS)):
        model = nn.Sequential(table, net_of())
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        for ids in BATCHES:
            learn(table, stepper_of(table), [ids])
            if isinstance(table, CachedEmbedding):  # whose parameters() are older than its cache
                assert not torch.equal(next(table.parameters()).clone(), table.weight)
                table.flush()
            averaged.update_parameters(model)
        averages.append(averaged.module[0])
    same(*averages)


@pytest.mark.parametrize(
    ("rows", "max_norm"),  # max_norm writes: in threads it is not nn.Embedding's either
    [(None, None), (4, None), (4, 0.5), (14, None), (14, 0.5)],
    ids=["offloaded", "4 rows", "4 rows, max_norm", "14 rows", "14 rows, max_norm"],
)
def test_inference_in_threads(rows: int | None, max_norm: float | None) -> None:
    make = table_of if rows is None else partial(cached_of, rows=rows)
    table, plain = make(ROWS, max_norm=max_norm), dense_of(ROWS, max_norm=max_norm)
    expected, wrong = plain(torch.arange(20)).detach(), []

    @torch.no_grad()
    def look_up(seed: int) -> None:
        for ids in zipf(20, 150, 4, seed):
            if not torch.allclose(table(ids), expected[ids], atol=1e-6):
                wrong.append(ids)

    threads = [threading.Thread(target=look_up, args=(seed,)) for seed in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    sys.setswitchinterval(interval)
    assert not wrong
