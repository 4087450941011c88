"""A prefetching thread may meet the other one at any moment."""

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from host_tables import (
    cached_of,
    learn,
    loss_of,
    plain_of,
    rows_of,
    same,
    stepper_of,
    table_of,
    zipf,
)
from torch import Tensor, nn

from helpers.offload import CachedEmbedding, Meter, Prefetcher, crossing

REPLACED = {
    "rows": lambda table, new: table.load_state_dict({"weight": new}),
    "weight": lambda table, new: table.load_state_dict({"weight": new}, assign=True),
    "dtype": lambda table, new: table.double(),
    "state": lambda table, new: table.load_optimizer_state({"sum": new * new}),
    "copy": lambda table, new: copy.deepcopy(table),
}


@pytest.mark.parametrize("what", REPLACED)
def test_a_prefetcher_in_between_caches_nothing_stale(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, new, ids = rows_of(20, 2), rows_of(20, 2, seed=1), torch.arange(4)
    table = cached_of(rows, rows=16, update="adagrad")
    close = CachedEmbedding.close

    def fetch_ahead() -> None:
        with table._alone():
            table._fetched_ahead(ids, [])

    worker = threading.Thread(target=fetch_ahead)

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
    for name in ("gathered", "to_host", "to_device"):
        monkeypatch.setattr(crossing, name, late(getattr(crossing, name), seed))
    given_to = ours if update == "offloaded" else None
    busy_body(table, ours, Prefetcher(batches, table, optimizer=given_to))
    same(table, plain)


def test_a_write_by_hand_is_not_undone_by_an_eviction_under_way(monkeypatch) -> None:
    """The other thread evicts row 0 while this one, having read the weight, writes it."""
    cached = cached_of(torch.zeros(8, 1), rows=4)
    writing, evicting = threading.Event(), threading.Event()
    real = crossing.to_host

    def waits(tensor: Tensor, meter: Meter) -> Tensor:
        if threading.current_thread().name.startswith("prefetch") and gate:
            evicting.set()
            writing.wait(1)
        return real(tensor, meter)

    gate: list[int] = []
    monkeypatch.setattr(crossing, "to_host", waits)
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
