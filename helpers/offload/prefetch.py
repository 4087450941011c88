"""Fetching ahead: the rows of the next batch cross while the device is at work on this one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .crossing import CPU
from .table import LookUp, OffloadedEmbedding, among, writes

# These change no row but those of a sparse gradient, unless momentum is asked for. (Weight decay
# would too, and goes with dense gradients only.)
_ROW_WISE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam)
_LISTS, _DICTS = (list, tuple, nn.ModuleList), (Mapping, nn.ModuleDict)


class Prefetcher:
    """The same batches, each with its rows on the way to the device while the last one is at work.

        for batch in Prefetcher(loader, table, ids=lambda batch: batch["ids"], optimizer=optimizer):
            loss = model(batch)  # which hands batch["ids"] to the table

    When a batch is handed out, a second thread begins to fetch the rows of the next one, on a
    stream of its own where the device is an accelerator that has a second one. Rows that the
    running step may change are left out; they are fetched when the table is called, and so is every
    row that was written since. No row is served stale. (A write through `.data` or NumPy is seen
    neither here nor by a cache.) The rows of two batches are alive at a time.

    An OffloadedEmbedding's meter counts, beside the rows and the ids, 2 · U bytes for a batch of U
    distinct ids: which rows came ahead, and which came after. A row crosses once, unless it was
    written after it was fetched.

    Args:
        batches: any iterable, whose batches' ids lie in memory of their own until they are used.
        table: an OffloadedEmbedding or a CachedEmbedding, or a list or dict of such.
        ids: from a batch to the tensor of ids that the table will be called with; for a list or
            dict of tables, to a list or dict of tensors. Default: the batch itself.
        optimizer: the one that steps the table, so that it is known which rows a step changes: SGD
            without momentum, Adagrad or SparseAdam, without weight decay. With any other, or with
            none, a step may change every row, and all are fetched again: right, and slow. A
            CachedEmbedding knows its own rows and needs none.

    Raises:
        TypeError: a table of another kind, or ids that are no tensors.
        ValueError: an OffloadedEmbedding with max_norm, which writes rows when they are looked up;
            other names in the ids than in the tables.
        RuntimeError: ids that were written to before their batch was handed out.

    Warns once in a loop where rows were fetched that nobody asked for.
    """

    def __init__(
        self,
        batches: Iterable,
        table: OffloadedEmbedding | list | Mapping,
        ids: Callable[[Any], Any] = lambda batch: batch,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.batches, self.table, self.ids, self.optimizer = batches, table, ids, optimizer
        self._several = isinstance(table, (*_LISTS, *_DICTS))
        self._tables = _named(table) if self._several else {0: table}
        for one in self._tables.values():
            _fit(one)
        self._sides: dict[torch.device, torch.Stream] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        batches, failure = iter(self.batches), None
        with ThreadPoolExecutor(1, "prefetch") as worker, ExitStack() as open_now:
            journals = {
                name: open_now.enter_context(_Journal(table, self.optimizer))
                for name, table in self._tables.items()
            }
            turn = _Turn()
            open_now.callback(turn.end, quietly=True)
            try:
                coming = self._started(worker, batches, journals)
                while coming is not None:
                    batch, waiting, future = coming
                    future.result()  # raises here what was raised over there
                    turn.begin(waiting)
                    try:
                        coming = self._started(worker, batches, journals)
                    except Exception as error:  # batches failed: first hand out what came before
                        coming, failure = None, error
                    for one in waiting:
                        one.unwritten()
                    waiting = future = None
                    yield batch
                turn.end()
                if failure is not None:
                    raise failure
            finally:
                # An error's traceback refers to this frame. If the frame referred to the error too,
                # this cycle would keep both, and the callers' loops and threads, for a while.
                coming = waiting = future = failure = None

    def _started(
        self, worker: ThreadPoolExecutor, batches: Iterator, journals: dict[Any, _Journal]
    ) -> tuple[Any, list[_Waiting], Future] | None:
        """The next batch, and its rows to come for each table."""
        for batch in batches:
            ids = _named(self.ids(batch)) if self._several else {0: self.ids(batch)}
            if ids.keys() != self._tables.keys():
                raise ValueError(
                    f"ids= gives tensors for {list(ids)}, and the tables are {list(self._tables)}. "
                    "Give one tensor for each table, by the same name or in the same order."
                )
            waiting = [_Waiting(ids[name], journal) for name, journal in journals.items()]
            busy = [one.table._busy() for one in waiting]
            streams = [_stream(one) for one in waiting]
            return batch, waiting, worker.submit(self._fetch, waiting, busy, streams)
        return None

    def _fetch(
        self,
        waiting: list[_Waiting],
        busy: list[list[LookUp]],
        streams: list[torch.Stream | None],
    ) -> None:
        for one, at_work, here in zip(waiting, busy, streams, strict=True):
            # The table's lock is held until the side stream is done.
            with one.table._alone(), self._beside(here) as keep:
                one.found = one.table._fetched_ahead(one.ids, at_work)
                keep(one.found)

    @contextmanager
    def _beside(self, here: torch.Stream | None) -> Iterator[Callable[[LookUp], None]]:
        """Another stream, after what stream `here` has been given, and beside what follows.

        Gives a function that keeps what was fetched from being overwritten while `here` reads it.
        """
        if here is None:
            yield lambda found: None
            return
        if here.device not in self._sides:
            self._sides[here.device] = _second_stream(here)
        side = self._sides[here.device]

        def keep(found: LookUp) -> None:
            for tensor in (found.distinct, found.inverse, found.rows, found.slots):
                if side != here and tensor is not None and tensor.device == here.device:
                    tensor.record_stream(here)

        if side != here:
            side.wait_stream(here)
        try:
            with side:
                yield keep
        finally:
            side.record_event().synchronize()


def _named(those: Any) -> dict:
    """A list or dict of tables, or of tensors of ids, as a dict."""
    if isinstance(those, _LISTS):
        return dict(enumerate(those))
    return dict(those.items()) if isinstance(those, _DICTS) else {0: those}


def _fit(table: Any) -> None:
    if not isinstance(table, OffloadedEmbedding):
        raise TypeError(
            f"A Prefetcher fetches from a host, and table={table!r} is no OffloadedEmbedding or "
            "CachedEmbedding. Make it one, or leave the Prefetcher out."
        )
    if table.max_norm is not None and not table._max_norm_ahead:
        raise ValueError(
            f"max_norm={table.max_norm} writes rows when they are looked up, so they cannot be "
            "fetched ahead. Call the table without a Prefetcher, or shorten rows after a step."
        )
    table._weight  # noqa: B018 - raises where it is no plain parameter


def _stream(one: _Waiting) -> torch.Stream | None:
    """The caller's stream on the accelerator where the rows are wanted."""
    device = one.table.device or one.ids.device
    return None if device.type in ("cpu", "meta") else torch.accelerator.current_stream(device)


def _second_stream(here: torch.Stream) -> torch.Stream:
    try:
        return torch.Stream(here.device)
    except (RuntimeError, NotImplementedError):  # an accelerator that has one only
        return here


class _Waiting:
    """One batch's ids for one table, and what was fetched for them."""

    def __init__(self, ids: Tensor, journal: _Journal) -> None:
        if not isinstance(ids, Tensor):
            raise TypeError(
                f"The ids of a batch are of type {type(ids).__name__}, and a tensor is wanted. Say "
                'where in a batch they are: Prefetcher(..., ids=lambda batch: batch["ids"]).'
            )
        self.ids, self.journal, self.table = ids, journal, journal.table
        self.found: LookUp | None = None
        self.written: list[Tensor | None] = []  # the rows of each write since, None for all
        # On the host the numbers tell whether ids are these; elsewhere that would take a wait.
        self.writes = writes(ids)
        self.numbers = ids.clone() if ids.device == CPU else None
        journal.open(self)

    def _as_they_were(self, ids: Tensor) -> bool:
        if self.numbers is not None:
            return torch.equal(ids.reshape(-1).long(), self.numbers.reshape(-1).long())
        return writes(ids) == self.writes

    def unwritten(self) -> None:
        """RuntimeError if somebody wrote to the ids before their batch was handed out."""
        if not self._as_they_were(self.ids):
            raise RuntimeError(
                "The ids of a batch were overwritten before the batch was handed out, by a loader "
                "that fills the same memory again, as a rule. Let it give a new tensor each time, "
                "batch.clone() say."
            )

    def is_for(self, ids: Any) -> bool:
        if not isinstance(ids, Tensor) or ids.device != self.ids.device:
            return False
        if ids.numel() != self.ids.numel() or ids.dtype not in (torch.int32, torch.int64):
            return False
        return (ids is self.ids or self.numbers is not None) and self._as_they_were(ids)

    def handed_over(self, ids: Tensor) -> LookUp:
        """What was fetched; its `late` says which rows are to be fetched (again)."""
        found, self.found = self.found, None
        if found.late is not None:
            found.late |= self.journal.touched(self, found.distinct)
        found.inverse = found.inverse.view(ids.shape)
        return found


class _Turn:
    """Which batch's rows the tables have at hand: those of the batch that was handed out."""

    def __init__(self) -> None:
        self.now: list[_Waiting] = []
        self.warned = False

    def begin(self, waiting: list[_Waiting]) -> None:
        self.end()
        self.now = waiting
        for one in waiting:
            one.table._ahead.append(one)

    def end(self, quietly: bool = False) -> None:
        now, self.now = self.now, []
        unused = [one for one in now if one in one.table._ahead]
        for one in now:
            one.journal.waiting.remove(one)
        for one in unused:
            one.table._ahead.remove(one)
        if unused and not (quietly or self.warned):
            self.warned = True
            warnings.warn(
                "Rows were fetched ahead that the table was not asked for: it was called with "
                "other ids, with ids on another device, or not at all. Let ids= give the very "
                "tensor that the table is called with.",
                stacklevel=4,
            )


class _Journal:
    """Tells those who wait which rows of a table are written, by hooks on optimizers."""

    def __init__(self, table: OffloadedEmbedding, optimizer: torch.optim.Optimizer | None) -> None:
        self.table, self.optimizer = table, optimizer
        self.waiting: list[_Waiting] = []
        self.seen = table._stamp()

    def __enter__(self) -> _Journal:
        before = register_optimizer_step_pre_hook(lambda *_: self._look())
        self.handles = [before, register_optimizer_step_post_hook(self._stepped)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.waiting.clear()  # breaks a reference cycle

    def open(self, waiting: _Waiting) -> None:
        self._look()
        self.waiting.append(waiting)

    def touched(self, waiting: _Waiting, distinct: Tensor) -> Tensor:
        """For each of the distinct ids, whether its row was written while these waited."""
        self._look()
        if any(rows is None for rows in waiting.written):
            return torch.ones(len(distinct), dtype=torch.bool, device=CPU)
        return among(distinct, waiting.written, self.table.num_embeddings)

    def _note(self, rows: Tensor | None) -> None:
        for one in self.waiting:
            one.written.append(rows)
        self.seen = self.table._stamp()

    def _look(self) -> None:
        """A write that no step announced may have been to any row."""
        if self.table._stamp() != self.seen:
            self._note(None)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        weight = self.table._weight
        gradient, groups = weight.grad, optimizer.param_groups
        group = next((g for g in groups if any(p is weight for p in g["params"])), None)
        if group is None or gradient is None:
            return
        # Not asked: whether the weight's version is another. Fused optimizers leave it as it was.
        row_wise = optimizer is self.optimizer and type(optimizer) in _ROW_WISE
        row_wise = row_wise and gradient.is_sparse and not group.get("momentum")
        self._note(gradient.coalesce().indices()[0] if row_wise else None)
