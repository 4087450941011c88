"""After a fault at any moment no row and no step is lost."""

import contextlib
import functools
import itertools
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
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
    same_sum,
    stepper_of,
    table_of,
)
from torch import Tensor, nn

from helpers.offload import (
    Prefetcher,
    crossing,
)


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


OWN = ["to_device", "to_host", "gathered"]


METHODS = ["index_copy_", "index_select", "unique", "split"]


@pytest.mark.parametrize(
    ("run", "after"), [(retrying, False), (retrying, True), (retrying_ahead, False)]
)
@pytest.mark.parametrize("kind", ["adagrad", "offloaded"])
def test_a_fault_in_any_operation_loses_nothing(kind, run, after, monkeypatch) -> None:
    update = "adagrad" if kind == "adagrad" else "sgd"
    (plain, its), faults = undisturbed(update, run), 0
    for owner, name in [(crossing, n) for n in OWN] + [(Tensor, n) for n in METHODS]:
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
def is_a_with(file: str, line: int) -> bool:
    return linecache.getline(file, line).lstrip().startswith("with ")


PACKAGE = str(Path(crossing.__file__).parent)


class FaultAt:
    """Raises at the n-th line that is run in helpers/offload: as Ctrl-C may, anywhere.

    But on the line of a `with`: Python lets nothing come between a block's end and its lock's.
    """

    def __init__(self, n: int) -> None:
        self.n, self.lines = n, []

    def __call__(self, frame: FrameType, event: str, arg: object) -> "FaultAt | None":
        file, line = frame.f_code.co_filename, frame.f_lineno
        if not file.startswith(PACKAGE):
            return None
        if event == "line" and not is_a_with(file, line):
            self.lines.append((file, line))
            if len(self.lines) == self.n:
                raise FaultError(f"line {line} of {file}")
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


def test_a_fault_while_rows_are_fetched_again() -> None:
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
