"""Tables whose rows are wanted on an accelerator; on whatever is there."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from host_tables import cached_of, learn, loss_of, plain_of, rows_of, stepper_of, table_of, zipf
from torch import Tensor, nn

from helpers.offload import OffloadedEmbedding, Prefetcher

ACCELERATOR = torch.accelerator.current_accelerator(check_available=True)
pytestmark = pytest.mark.skipif(ACCELERATOR is None, reason="needs an accelerator")
DEVICE = str(ACCELERATOR)  # "None" where all of this is skipped
ON = pytest.mark.parametrize("ids_on", ["cpu", DEVICE], ids=["ids-on-host", "ids-on-device"])


@pytest.fixture(autouse=True)
def _all_done() -> Iterator[None]:
    """What one test has left on the device ends before the next begins."""
    yield
    if ACCELERATOR is not None:
        torch.accelerator.synchronize()


def tables_there(rows: Tensor) -> list[OffloadedEmbedding]:
    return [
        table_of(rows, device=DEVICE),
        cached_of(rows, rows=16, device=DEVICE),
        cached_of(rows, rows=16, update="adagrad", device=DEVICE),
    ]


def test_the_output_lands_where_it_is_wanted() -> None:
    rows, ids = rows_of(9, 2), torch.tensor([[1, 2], [1, 8]])
    assert table_of(rows)(ids).device.type == "cpu"
    assert table_of(rows)(ids.to(DEVICE)).device.type == ACCELERATOR.type
    assert table_of(rows, device=DEVICE)(ids).device.type == ACCELERATOR.type
    assert table_of(rows, device="cpu")(ids.to(DEVICE)).device.type == "cpu"
    table = table_of(rows).to(DEVICE).half()
    out = table(ids)
    assert out.device.type == ACCELERATOR.type and table.weight.device.type == "cpu"
    assert torch.equal(out.cpu(), rows.half()[ids])
    out.sum().backward()
    assert table.weight.grad.device.type == "cpu" and table.weight.grad._nnz() == 3
    assert table.cpu()(ids).device.type == "cpu"
    assert table.to(DEVICE, torch.float64)(ids).dtype == torch.float64


def test_a_state_on_an_accelerator_comes_to_the_host() -> None:
    rows = rows_of(9, 2)
    for table in (table_of(rows, freeze=True), cached_of(rows, freeze=True, rows=3)):
        table.load_state_dict({"weight": rows.to(DEVICE) + 1}, assign=True)
        assert table.weight.device.type == "cpu" and not table.weight.requires_grad
        assert torch.equal(table(torch.tensor([2])), rows[2:3] + 1)


@ON
@pytest.mark.parametrize("out_on", ["cpu", DEVICE], ids=["out-on-host", "out-on-device"])
def test_the_meter_with_ids_on_either_side(ids_on: str, out_on: str) -> None:
    table = table_of(rows_of(9, 2), device=out_on)
    ids = torch.tensor([1, 2, 1, 8], device=ids_on)
    loss_of(table(ids)).backward()
    N, U, row = 4 * 8, 3, 2 * 4
    there = N if (ids_on, out_on) == ("cpu", DEVICE) else 0
    back = N if (ids_on, out_on) == (DEVICE, "cpu") else 0
    assert table.meter.to_device == U * row + there
    assert table.meter.to_host == U * 8 + U * row + back


@ON
def test_the_meter_of_a_cache_on_an_accelerator(ids_on: str) -> None:
    cached = cached_of(rows_of(9, 2), rows=3, device=DEVICE)
    for ids, M, E in (([1, 2, 1], 2, 0), ([2, 5, 6], 2, 1)):
        cached.meter.reset()
        loss_of(cached(torch.tensor(ids, device=ids_on))).backward()
        cached.step()
        assert cached.meter.to_device == M * 8 + (3 * 8 if ids_on == "cpu" else 0)
        assert cached.meter.to_host == M * 8 + E * (8 + 8) + (0 if ids_on == "cpu" else 2 * 8)


@pytest.mark.parametrize(
    "ids", [torch.tensor([9]), torch.tensor([-1]), torch.tensor([1.0])], ids=str
)
@ON
def test_wrong_ids_raise_on_the_host_and_it_lives(ids: Tensor, ids_on: str) -> None:
    with pytest.raises(Exception) as expected:
        nn.Embedding(9, 2)(ids)
    for table in tables_there(rows_of(9, 2)):
        with pytest.raises(expected.type) as error:
            table(ids.to(ids_on))
        assert str(error.value) == str(expected.value)
        assert table(torch.tensor([1], device=ids_on)).isfinite().all()
        torch.accelerator.synchronize()


@pytest.mark.parametrize("kind", range(3), ids=["offloaded", "sgd", "adagrad"])
@pytest.mark.parametrize("prefetch", [False, True])
@ON
def test_training_on_an_accelerator_is_the_same(kind: int, prefetch: bool, ids_on: str) -> None:
    rows, batches = rows_of(60, 4), zipf(60, 80, 6)
    table = tables_there(rows)[kind]
    update = "adagrad" if kind == 2 else "sgd"
    plain, stepper = plain_of(rows), stepper_of(table, update)
    learn(plain, stepper_of(plain, update), batches)
    moved = [ids.to(ids_on) for ids in batches]
    ahead = Prefetcher(moved, table, optimizer=None if kind else stepper)
    learn(table, stepper, ahead if prefetch else moved)
    torch.testing.assert_close(table.weight, plain.weight, atol=1e-4, rtol=1e-4)
    assert table.weight.device.type == "cpu"


@pytest.mark.parametrize("kind", range(3), ids=["offloaded", "sgd", "adagrad"])
def test_streams_that_meet_at_any_moment(kind: int) -> None:
    """Look-ups that were not fetched ahead, beside a fetch on another stream, with a busy GPU."""
    rows, batches = rows_of(400, 64), zipf(400, 60, 24)
    table = [
        table_of(rows, device=DEVICE),
        cached_of(rows, rows=120, device=DEVICE),
        cached_of(rows, rows=120, update="adagrad", device=DEVICE),
    ][kind]
    update, heavy = "adagrad" if kind == 2 else "sgd", torch.randn(300, 300, device=DEVICE)

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


@pytest.mark.parametrize("kind", range(3), ids=["offloaded", "sgd", "adagrad"])
def test_the_caller_s_own_stream(kind: int) -> None:
    rows, batches = rows_of(60, 4), zipf(60, 30, 6)
    table, update = tables_there(rows)[kind], "adagrad" if kind == 2 else "sgd"
    plain, stepper = plain_of(rows), stepper_of(table, update)
    learn(plain, stepper_of(plain, update), batches)
    try:
        stream = torch.Stream(ACCELERATOR)
    except (RuntimeError, NotImplementedError):
        pytest.skip("this accelerator has one stream only")
    with stream:
        learn(table, stepper, Prefetcher(batches, table, optimizer=None if kind else stepper))
        torch.testing.assert_close(table.weight, plain.weight, atol=1e-4, rtol=1e-4)


def test_ids_may_be_overwritten_after_the_look_up() -> None:
    rows = rows_of(60, 4)
    for table in tables_there(rows):
        ids = torch.arange(8)
        out = table(ids)
        ids.fill_(0)  # not pinned: it was read before the look-up returned
        assert torch.equal(out.detach().cpu(), rows[:8])
