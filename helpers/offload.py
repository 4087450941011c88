"""Tables that stay in host memory: a drop-in for nn.Embedding, a prefetcher, a cache of hot rows.

    table = OffloadedEmbedding(20_000_000, 128, device="cuda")
    optimizer = torch.optim.Adagrad([table.weight], lr=0.05)
    for batch in Prefetcher(loader, table, ids=lambda batch: batch["ids"], optimizer=optimizer):
        ...

The words used here: the *host* is where the CPU's memory is; the *device* is where the rows are
wanted, a GPU as a rule. All that crosses from one to the other goes through `to_device` and
`to_host`, which count its bytes in a `Meter`. They count in the same way where the device is the
CPU itself, so the traffic of a program is known, to the byte, on a machine without a GPU. (The
few bytes by which PyTorch learns the size of a result, after `unique` say, are not counted.)

This file needs PyTorch alone and may be copied into other projects.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

CPU = torch.device("cpu")

# --- What crosses -----------------------------------------------------------------------------


class Meter:
    """Bytes that have crossed: `to_device` from the host, `to_host` back to it."""

    def __init__(self, to_device: int = 0, to_host: int = 0) -> None:
        self.to_device, self.to_host = to_device, to_host
        self._lock = threading.Lock()  # a prefetcher and backward count in threads of their own

    def add(self, to_device: int = 0, to_host: int = 0) -> None:
        with self._lock:
            self.to_device += to_device
            self.to_host += to_host

    def reset(self) -> None:
        self.to_device = self.to_host = 0

    def __repr__(self) -> str:
        return f"Meter(to_device={self.to_device:,}, to_host={self.to_host:,})"

    def __reduce__(self) -> tuple:
        return Meter, (self.to_device, self.to_host)


def to_device(tensor: Tensor, device: torch.device, meter: Meter) -> Tensor:
    """`tensor`, which lies on the host, on `device`; its bytes are counted.

    A pinned tensor is copied while the host goes on. Where the device is the CPU nothing is copied.
    """
    meter.add(to_device=tensor.nbytes)
    return tensor.to(device, non_blocking=True)


def to_host(tensor: Tensor, meter: Meter) -> Tensor:
    """`tensor`, which lies on the device, on the host; its bytes are counted.

    Returns when the copy is complete. Where the device is the CPU nothing is copied.
    """
    meter.add(to_host=tensor.nbytes)
    if tensor.device.type != "cuda":
        return tensor.to(CPU)
    pinned = torch.empty_like(tensor, device=CPU, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned


def _take(table: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """Rows `ids` of a host table: in pinned memory where a GPU is to fetch them from there."""
    pin = device.type == "cuda"
    shape = len(ids), table.shape[1]
    rows = torch.empty(shape, dtype=table.dtype, device=CPU, pin_memory=pin)
    return torch.index_select(table, 0, ids, out=rows)


# --- The table --------------------------------------------------------------------------------


@dataclass(eq=False)
class _Fetched:
    """What was fetched for one tensor of ids. A cache has slots in the place of rows."""

    distinct: Tensor  # (U,) sorted; on the host, or on the device where a cache is
    inverse: Tensor  # the ids' shape, on the device: which of the distinct each id is
    rows: Tensor | None = None  # (U, D) on the device
    slots: Tensor | None = None  # (U,) on the device
    epoch: int = -1  # of the cache that the slots belong to
    done: bool = False  # its step is made, and its slots may be another's
    stale: Callable[[], Tensor] | None = None  # fetched ahead: says which rows to fetch again, (U,)


class OffloadedEmbedding(nn.Embedding):
    """nn.Embedding whose weight stays in host memory: only the rows of a batch cross.

    Constructor, from_pretrained, forward, gradients and state_dict are nn.Embedding's, with these
    differences, all of them:

    - `sparse` is True by default: the gradient is a sparse tensor on the host, each row once. SGD,
      Adagrad or SparseAdam step it there. With sparse=False it is dense, (V, D), for any optimizer.
    - `device` is where the output lands; None stands for wherever the ids are. `.to(device)` and
      `.cuda()` set it and leave the weight where it is, `.cpu()` takes it back. A change of dtype
      is honoured. device="meta" is refused.
    - `scale_grad_by_freq` works with sparse=True too.
    - A gradient of the gradient is refused.

    For N ids of i bytes each, U of them distinct, and rows of D numbers of s bytes, the `meter`
    counts to the byte

    - forward, to the device: U · D · s, and N · i if the ids are on the host and the output is not;
    - forward, to the host: U · i, the distinct ids, found where the output lands (and N · i if the
      ids are on a device and the output is not);
    - backward, to the host: U · D · s.

    Args:
        num_embeddings ... dtype: as nn.Embedding, but for the above.
        meter: counts what crosses; several tables may share one. Default: one of its own.

    Raises:
        ValueError: device="meta".
        IndexError, RuntimeError, TypeError: from forward, as nn.Embedding, for ids out of range, of
            a wrong dtype or no tensor; raised on the host, before anything is looked up.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = True,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.device = None if device is None else torch.empty(0, device=device).device
        if self.device is not None and self.device.type == "meta":
            raise ValueError('device="meta" holds no numbers. Leave device out: the weight is made '
                             "on the host in any case.")  # fmt: skip
        if _weight is not None:
            _weight = _weight.to(CPU)
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type,
                         scale_grad_by_freq, sparse, _weight, _freeze, CPU, dtype)  # fmt: skip
        self.meter = Meter() if meter is None else meter
        self._ahead: tuple[Tensor, int, _Fetched] | None = None  # ids, their version, their rows

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = True,
        **others: Any,
    ) -> OffloadedEmbedding:
        """A table of the given rows, (V, D), frozen unless freeze=False; as nn.Embedding's.

        Rows on the host are shared, rows elsewhere are copied to it. `others` are the constructor's
        further arguments, such as device and meter.
        """
        if embeddings.dim() != 2:
            raise ValueError(f"embeddings should have shape (V, D), not {tuple(embeddings.shape)}.")
        V, D = embeddings.shape
        return cls(V, D, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
                   _weight=embeddings, _freeze=freeze, **others)  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Embedding's name for the ids
        """ids of any shape (*) and dtype int32 or int64 to rows (*, D), on the device."""
        fetched = self._fetched(input)
        if self.max_norm is not None:
            host = self.weight.detach()
            torch.embedding_renorm_(host, fetched.distinct, self.max_norm, self.norm_type)
        if fetched.rows is None:
            fetched.rows = self._rows(fetched.distinct, fetched.inverse.device)
        if fetched.stale is not None:
            self._fill(fetched, fetched.stale())
        rows = _FromHost.apply(self.weight, fetched.rows, fetched.distinct, self)
        return self._spread(rows, fetched)

    def _fetched(self, ids: Tensor) -> _Fetched:
        """What was fetched ahead for these very ids, unwritten since, or else fetched now."""
        if self._ahead is not None:
            wanted, version, fetched = self._ahead
            if wanted is ids and _version(ids) == version:
                self._ahead = None
                return fetched
        return self._fetch(ids)

    def _fetch(self, ids: Tensor) -> _Fetched:
        """The distinct ids, sorted, on the host, and on the device which of them each id is."""
        on_device, inverse = self._brought(ids).unique(return_inverse=True)
        distinct = to_host(on_device, self.meter)
        self._check(distinct[:1], distinct[-1:])
        return _Fetched(distinct, inverse)

    def _brought(self, ids: Tensor) -> Tensor:
        """The ids where the output is to land, checked first if they are on the host."""
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int32, torch.int64):
            wrong = ids
            if isinstance(ids, Tensor):
                wrong = torch.empty(0, dtype=ids.dtype, device=CPU)
            F.embedding(wrong, self._host)  # raises the error that nn.Embedding would
        device = ids.device if self.device is None else self.device
        if ids.device == device:
            return ids
        if ids.device == CPU:
            if ids.numel():
                self._check(*ids.aminmax())
            return to_device(ids, device, self.meter)
        ids = to_host(ids, self.meter)
        return ids if device == CPU else to_device(ids, device, self.meter)

    def _check(self, *ids: Tensor) -> None:
        """nn.Embedding's error where one of these ids, on the host, is out of range."""
        for some in ids:
            F.embedding(some, self._host.detach())

    @property
    def _host(self) -> Tensor:
        return self._parameters["weight"]

    @property
    def _stamp(self) -> tuple[_The, int]:
        """Another one after each write to the weight, and if another tensor takes its place."""
        return _The(self._host), _version(self._host)

    def _rows(self, distinct: Tensor, device: torch.device) -> Tensor:
        return to_device(_take(self._host.detach(), distinct, device), device, self.meter)

    def _fill(self, fetched: _Fetched, wanted: Tensor) -> None:
        """Fetch the rows where `wanted`, (U,) bool, is true into their places."""
        device = fetched.inverse.device
        rows = self._rows(fetched.distinct[wanted], device)
        fetched.rows[to_device(wanted, device, self.meter)] = rows

    def _spread(self, rows: Tensor, fetched: _Fetched) -> Tensor:
        """Each id's row. PyTorch's own look-up in the small table of distinct rows does it."""
        return F.embedding(fetched.inverse, rows, scale_grad_by_freq=self.scale_grad_by_freq)

    def _busy(self) -> list[_Fetched]:
        """What the running batch is at work on."""
        return [] if self._ahead is None else [self._ahead[-1]]

    def _alone(self) -> AbstractContextManager:
        """Keeps others from what fetching changes: nothing here."""
        return nullcontext()

    def _fetch_ahead(self, ids: Tensor, busy: list[_Fetched]) -> _Fetched:
        """As _fetch, with all rows but the busy ones, which the running step will change."""
        fetched = self._fetch(ids)
        U, device = len(fetched.distinct), fetched.inverse.device
        fetched.rows = torch.empty(U, self.embedding_dim, dtype=self._host.dtype, device=device)
        late = _among(fetched.distinct, [b.distinct.long() for b in busy], self.num_embeddings)
        self._fill(fetched, ~late)
        fetched.stale = lambda: late
        return fetched

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OffloadedEmbedding:
        """What .to(), .cuda(), .half() ... call: it may change the dtype, never the memory."""
        before = torch.empty(0, dtype=self._host.dtype, device=self.device or CPU)
        probe = fn(before)
        if probe.device != before.device:
            self.device = None if probe.device == CPU else probe.device
        if probe.device != CPU:
            return super()._apply(lambda tensor: tensor.to(probe.dtype), recurse)
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if self._host.device != CPU:  # as load_state_dict(assign=True) may leave it
            rows, learns = self._host.detach().to(CPU), self._host.requires_grad
            self._parameters["weight"] = nn.Parameter(rows, learns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": None}

    def extra_repr(self) -> str:
        where = "the ids' device" if self.device is None else self.device
        return f"{super().extra_repr()}, weight on the host, output on {where}"


class _The(weakref.ref):
    """A tensor, known again as itself. (Its id() may pass to another once it is gone.)"""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _The) and self() is other()


def _version(tensor: Tensor) -> int:
    """How often it was written in place. (In inference mode nobody counts.)"""
    return 0 if tensor.is_inference() else tensor._version


class _FromHost(torch.autograd.Function):
    """Rows that were fetched from a table, and the way of their gradient back to it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, distinct: Tensor, table: Any) -> Tensor:
        ctx.distinct, ctx.table, ctx.shape = distinct, table, weight.shape
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, distinct = ctx.table, ctx.distinct.long()
        values = to_host(gradient, table.meter)
        if table.padding_idx is not None:
            learns = distinct != table.padding_idx
            distinct, values = distinct[learns], values[learns]
        if table.sparse:
            whole = torch.sparse_coo_tensor(
                distinct.unsqueeze(0), values, ctx.shape, is_coalesced=True, check_invariants=False
            )
        else:
            whole = values.new_zeros(ctx.shape).index_copy_(0, distinct, values)
        return whole, None, None, None


# --- Fetching ahead ---------------------------------------------------------------------------

# These change no row but those of a sparse gradient, unless momentum is asked for. (Weight decay
# would too, and goes with dense gradients only.)
_ROW_WISE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam)


class Prefetcher:
    """The same batches, each with its rows on the way to the device while the last one is at work.

        for batch in Prefetcher(loader, table, ids=lambda batch: batch["ids"], optimizer=optimizer):
            loss = model(batch)  # which hands batch["ids"], that very tensor, to the table

    When a batch is handed out, a second thread begins to fetch the rows of the next one, on a
    stream of its own where the device is a GPU. Rows that the running step may change are left out;
    they are fetched when the table is called, and so is every row that was written since. No row is
    served stale. (A write through `.data` or NumPy is seen neither here nor by a cache.)

    An OffloadedEmbedding's meter counts, beside the rows and the ids, 2 · U bytes for a batch of U
    distinct ids: which rows came ahead, and which came after. A row crosses once, unless it was
    written after it was fetched.

    Args:
        batches: any iterable.
        table: an OffloadedEmbedding or a CachedEmbedding.
        ids: from a batch to the tensor of ids that the table will be called with.
        optimizer: the one that steps the table, so that it is known which rows a step changes: SGD
            without momentum, Adagrad or SparseAdam, without weight decay. With any other, or with
            none, a step may change every row, and all are fetched again: right, and slow. A
            CachedEmbedding knows its own rows and needs none.

    Raises:
        ValueError: an OffloadedEmbedding with max_norm, which writes rows when they are looked up.
    """

    def __init__(
        self,
        batches: Iterable,
        table: OffloadedEmbedding,
        ids: Callable[[Any], Tensor] = lambda batch: batch,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        if table.max_norm is not None and not isinstance(table, CachedEmbedding):
            raise ValueError(
                f"max_norm={table.max_norm} writes rows when they are looked up, so they cannot be "
                "fetched ahead. Call the table without a Prefetcher, or shorten rows after a step."
            )
        self.batches, self.table, self.ids, self.optimizer = batches, table, ids, optimizer
        self._side: torch.cuda.Stream | None = None

    def __iter__(self) -> Iterator:
        batches, failure = iter(self.batches), None
        with ThreadPoolExecutor(1, "prefetch") as worker, _Writes(self) as writes:
            try:
                waiting = self._start(worker, writes, batches)
                while waiting is not None:
                    batch, ids, version, future = waiting
                    # .result() raises here what was raised over there.
                    self.table._ahead = ids, version, future.result()
                    try:
                        waiting = self._start(worker, writes, batches)
                    except Exception as error:  # batches failed: first hand out what came before
                        waiting, failure = None, error
                    yield batch
                if failure is not None:
                    raise failure
            finally:
                self.table._ahead = None
                # An error knows this frame. If the frame knew it, both would live on, as would
                # those who called, their loops and threads, until the garbage is collected.
                waiting = future = failure = None

    def _start(
        self, worker: ThreadPoolExecutor, writes: _Writes, batches: Iterator
    ) -> tuple[Any, Tensor, int, Future[_Fetched]] | None:
        """The next batch, its ids and their version, and its rows to come."""
        for batch in batches:
            ids, since, here = self.ids(batch), writes.now(), None
            version = _version(ids)
            if (device := self.table.device or ids.device).type == "cuda":
                here = torch.cuda.current_stream(device)
                self._side = self._side or torch.cuda.Stream(device)
            job = writes, since, ids, self.table._busy(), here
            return batch, ids, version, worker.submit(self._fetch, *job)
        return None

    def _fetch(
        self,
        writes: _Writes,
        since: int,
        ids: Tensor,
        busy: list[_Fetched],
        here: torch.cuda.Stream | None,
    ) -> _Fetched:
        with self.table._alone():
            # First what is busy, then the wait, which covers all that is busy no more.
            busy = [*busy, *self.table._busy()]
            if here is not None:  # after what this stream has been given, and beside what follows
                self._side.wait_stream(here)
            try:
                with torch.cuda.stream(self._side if here is not None else None):
                    fetched = self.table._fetch_ahead(ids, busy)
            finally:
                if here is not None:
                    self._side.synchronize()
        if here is not None:
            for tensor in (fetched.distinct, fetched.inverse, fetched.rows, fetched.slots):
                if tensor is not None and tensor.is_cuda:
                    tensor.record_stream(here)
        if (left_out := fetched.stale) is not None:
            fetched.stale = lambda: left_out() | writes.touched(fetched.distinct, since)
        return fetched


class _Writes:
    """Which rows of a table were written since a given moment, told by hooks on optimizers."""

    def __init__(self, prefetcher: Prefetcher) -> None:
        self.table, self.optimizer = prefetcher.table, prefetcher.optimizer
        self.log: list[Tensor | None] = []  # the rows of each write, None for all of them
        self.begin = self.last = 0  # moments: of the first entry, and of the last call of `now`
        self.seen = self.table._stamp

    def __enter__(self) -> _Writes:
        before = register_optimizer_step_pre_hook(lambda *_: self._look())
        self.handles = [before, register_optimizer_step_post_hook(self._stepped)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def now(self) -> int:
        """A moment for `touched`, which knows this one and the one before."""
        self._look()
        log = self.log[self.last - self.begin :]
        self.log, self.begin, self.last = log, self.last, self.last + len(log)
        return self.last

    def touched(self, distinct: Tensor, since: int) -> Tensor:
        """For each of the distinct ids, whether its row was written since."""
        self._look()
        rows = [None] if since < self.begin else self.log[since - self.begin :]
        if any(some is None for some in rows):
            return torch.ones(len(distinct), dtype=torch.bool, device=CPU)
        return _among(distinct, rows, self.table.num_embeddings)

    def _look(self) -> None:
        """A write that no step announced may have been to any row."""
        if self.table._stamp != self.seen:
            self.log.append(None)
            self.seen = self.table._stamp

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        weight = self.table._host
        gradient, groups = weight.grad, optimizer.param_groups
        group = next((g for g in groups if any(p is weight for p in g["params"])), None)
        if group is None or gradient is None:
            return
        # Not asked: whether the weight's version is another. Fused optimizers leave it as it was.
        row_wise = optimizer is self.optimizer and type(optimizer) in _ROW_WISE
        row_wise = row_wise and gradient.is_sparse and not group.get("momentum")
        self.log.append(gradient.coalesce().indices()[0] if row_wise else None)
        self.seen = self.table._stamp


def _among(distinct: Tensor, rows: list[Tensor], V: int) -> Tensor:
    """For each of the distinct ids, whether it is one of `rows`."""
    marked = torch.zeros(V, dtype=torch.bool, device=CPU)
    for some in rows:
        marked[some] = True
    return marked[distinct.long()]


# --- A cache of hot rows ----------------------------------------------------------------------


class CachedEmbedding(OffloadedEmbedding):
    """An OffloadedEmbedding that keeps its hot rows on the device and updates them there.

    A row's newest value lives where the row lives, so the table owns its update: call `step()`
    after backward. No optimizer need hold it; one that does finds no gradient and leaves it alone.

        table = CachedEmbedding(20_000_000, 128, rows=1_000_000, update="adagrad", lr=0.05)
        loss = model(batch)
        loss.backward()
        optimizer.step()  # the rest of the model
        table.step()

    Every row of a batch gets a place in the cache. What is missing is fetched; where no place is
    free, the rows with the smallest counts that nobody is using are evicted, that is, written
    back to the host with their optimizer state. The result is that of nn.Embedding under
    torch.optim.SGD or Adagrad, to rounding. Reading `table.weight`, state_dict, pickling, moving
    the table to another device or dtype, and `close()` write everything back first. (`parameters()`
    does not: call `flush()` before.) A step is applied as a whole or not at all, and after an
    exception between any two operations each row is either in the cache or on the host, with all
    its updates.

    For a batch of N ids of i bytes, M distinct rows missing, E evicted (of those that may be newer
    than the host's: none until a step is made), and r bytes for a row and its state (D · s under
    SGD, 2 · D · s under Adagrad), the `meter` counts

    - to the device: M · r, and N · i if the ids are on the host and the cache is not (and 4 · V for
      given counts, when a cache begins);
    - to the host: M · 8 + E · (8 + r), and 2 · i, the smallest and the largest id, if the ids
      are not on the host.

    On the device lie the cache, rows · r bytes, and a directory of 8 bytes for each of the V rows
    and for each row of the cache.

    Args:
        rows: how many rows the cache holds; at least as many as a batch has distinct ids, or two
            batches with a Prefetcher.
        update: "sgd" or "adagrad". `lr` may be changed between steps (`table.lr = 0.01`).
        eps, initial_accumulator_value: as in torch.optim.Adagrad.
        counts: (V,) how often each id is looked up, which decides what stays. Default: learned,
            by counting the batches in which a row is asked for.
        The others: as OffloadedEmbedding. There is no `sparse`: no gradient of the table is made.

    Raises:
        ValueError: a size, rate or update that makes no sense, or counts of another shape.
        RuntimeError: from forward, where a batch has more distinct ids than the cache has rows.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = True,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        meter: Meter | None = None,
        *,
        rows: int,
        lr: float,
        update: str = "sgd",
        eps: float = 1e-10,
        initial_accumulator_value: float = 0.0,
        counts: Tensor | None = None,
    ) -> None:
        if not sparse:
            raise ValueError(
                "sparse=False asks for a dense gradient, and a cached table makes none: it updates "
                "its rows itself. Leave sparse out, or use OffloadedEmbedding."
            )
        if rows < 1:
            raise ValueError(f"rows={rows}: a cache holds at least one row.")
        if update not in ("sgd", "adagrad"):
            raise ValueError(
                f'update={update!r}: "sgd" and "adagrad" are known. For another optimizer use '
                "OffloadedEmbedding."
            )
        start = initial_accumulator_value
        for name, value in [("lr", lr), ("eps", eps), ("initial_accumulator_value", start)]:
            if not value >= 0:
                raise ValueError(f"{name}={value} should not be negative.")
        if counts is not None and counts.shape != (num_embeddings,):
            raise ValueError(
                f"counts has shape {tuple(counts.shape)}; ({num_embeddings},) is wanted, a count "
                "for each row."
            )
        # fmt: off
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type,
                         scale_grad_by_freq, sparse, _weight, _freeze, device, dtype, meter)
        # fmt: on
        self.cache_rows, self.update = min(rows, num_embeddings), update
        self.lr, self.eps = lr, eps
        self.counts = counts
        state = None
        if update == "adagrad":
            state = torch.full_like(self._host, start, requires_grad=False)
        self.register_buffer("state", state, persistent=False)  # on the host, beside the weight
        self._cache: Tensor | None = None  # made on the device by the first look-up
        self._epoch = self.lookups = self._hits_before = 0
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # of the directory, which a prefetcher changes too
        # The gradients since the last step, and what that step has yet to write.
        self._learning: tuple[list[tuple[_Fetched, Tensor]], tuple | None] = [], None
        self._in_use: weakref.WeakSet[_Fetched] = weakref.WeakSet()  # their rows are not evicted
        self._seen, self._stepped = self._stamp, False  # stepped: the cache has newer rows

    # Looking up

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Embedding's name for the ids
        """ids of any shape (*) and dtype int32 or int64 to rows (*, D), on the device."""
        self._settle()
        fetched = self._fetched(input)
        slots = self._slots(fetched)
        cached = self._cache[:, : self.embedding_dim]
        rows = cached.index_select(0, slots)
        if self.max_norm is not None:
            every = torch.arange(len(slots), device=slots.device)
            torch.embedding_renorm_(rows, every, self.max_norm, self.norm_type)
            self._stepped = True
            cached.index_copy_(0, slots, rows)
        if torch.is_grad_enabled() and self._host.requires_grad:
            rows.requires_grad_()
            rows.register_post_accumulate_grad_hook(lambda rows: self._collect(fetched, rows))
        return self._spread(rows, fetched)

    def _collect(self, fetched: _Fetched, rows: Tensor) -> None:
        gradient, rows.grad = rows.grad, None
        self._learning[0].append((fetched, gradient))

    def _fetch(self, ids: Tensor, busy: Sequence[_Fetched] = ()) -> _Fetched:
        distinct, inverse = self._brought(ids).unique(return_inverse=True)
        ends = torch.stack((distinct[0], distinct[-1])) if len(distinct) else distinct
        if distinct.device == CPU:
            self._check(ends)
        elif ids.device != CPU:  # ids from the host were checked there
            self._check(to_host(ends, self.meter))
        fetched = _Fetched(distinct.long(), inverse)
        with self._lock:
            self._admit(fetched, busy)
        return fetched

    def _busy(self) -> list[_Fetched]:
        """What looks up, or waits for its step: its rows are not evicted."""
        return [f for f in list(self._in_use) if not f.done]

    def _alone(self) -> AbstractContextManager:
        return self._lock

    def _fetch_ahead(self, ids: Tensor, busy: list[_Fetched]) -> _Fetched:
        """What is missing lies on the host, and no step changes it there: nothing can be stale."""
        return self._fetch(ids, busy)

    def _slots(self, fetched: _Fetched) -> Tensor:
        """Where the rows are; fetched again if the table was written or the cache emptied since."""
        if self._stamp != self._seen:
            with self._lock:
                self._reread()
        if fetched.done or fetched.epoch != self._epoch:
            with self._lock:
                self._admit(fetched)
        return fetched.slots

    # The directory: slot_of says in which slot of the cache an id's row is, -1 for none. It alone
    # is believed. id_of says whose row was put in a slot, and holds only where slot_of agrees.

    def _admit(self, fetched: _Fetched, busy: Sequence[_Fetched] = ()) -> None:
        """Give each of the distinct ids a slot of the cache; what is busy keeps its own."""
        self._reread()
        distinct = fetched.distinct
        if self._cache is not None and self._cache.device != distinct.device:
            self.close()
        if self._cache is None:
            self._open(distinct.device)
        if self.counts is None:
            self._count[distinct] += 1
        slots = self._slot_of[distinct]
        self.lookups += fetched.inverse.numel()
        self._hits += (slots >= 0)[fetched.inverse].sum()
        missing = distinct[slots < 0]
        if len(missing):
            used = [f.slots for f in (*busy, *self._busy()) if f.epoch == self._epoch]
            free = self._make_room(len(missing), [slots[slots >= 0].long(), *used])
            wanted = to_host(missing, self.meter)
            parts = [_take(table, wanted, distinct.device) for table in self._tables()]
            record = parts[0] if len(parts) == 1 else _beside_each_other(parts)
            self._cache.index_copy_(0, free, to_device(record, distinct.device, self.meter))
            self._id_of[free] = missing
            self._slot_of[missing] = free.int()
        self._in_use.add(fetched)
        fetched.slots = self._slot_of[distinct].long()
        fetched.epoch, fetched.done = self._epoch, False  # last: now the slots are believed

    def _make_room(self, needed: int, used: list[Tensor]) -> Tensor:
        """`needed` slots that are free, after evicting the rows with the smallest counts."""
        resident = self._resident()
        priority = self._count[self._id_of.clamp(min=0)]
        priority[~resident] = -1
        for slots in used:
            priority[slots] = torch.iinfo(priority.dtype).max
        smallest, slots = priority.topk(min(needed, len(priority)), largest=False)
        if needed > len(slots) or (smallest == torch.iinfo(priority.dtype).max).any():
            raise RuntimeError(
                f"A cache of {self.cache_rows:,} rows cannot hold the rows in use and {needed:,} "
                "that are missing. Give it more rows, or smaller batches. A Prefetcher needs room "
                "for two batches, and a forward pass without no_grad keeps its rows until the step."
            )
        evicted = slots[smallest >= 0]
        if len(evicted):
            if self._stepped:
                self._write_back(evicted)
            self._slot_of[self._id_of[evicted]] = -1
        return slots

    def _resident(self) -> Tensor:
        slots = torch.arange(self.cache_rows, device=self._id_of.device)
        return (self._id_of >= 0) & (self._slot_of[self._id_of.clamp(min=0)] == slots)

    def _write_back(self, slots: Tensor) -> None:
        """Copy the rows in these slots, and their state, to the host; they stay where they are."""
        ids = to_host(self._id_of[slots], self.meter)
        record = to_host(self._cache[slots], self.meter)
        for table, part in zip(self._tables(), record.split(self.embedding_dim, 1), strict=True):
            table.index_copy_(0, ids, part)

    def _tables(self) -> list[Tensor]:
        # .data: what is written back leaves the version as it is, which tells of others' writes.
        return [self._host.data] + ([] if self.state is None else [self.state])

    @torch.inference_mode(False)  # or no training could follow
    def _open(self, device: torch.device) -> None:
        V, D, n = self.num_embeddings, self.embedding_dim, self.cache_rows
        self._slot_of = torch.full((V,), -1, dtype=torch.int32, device=device)
        self._id_of = torch.full((n,), -1, device=device)
        self._count = torch.zeros(V, dtype=torch.int32, device=device)
        if self.counts is not None:
            counts = self.counts.to(CPU).clamp(0, 2**31 - 2).int()
            self._count += to_device(counts, device, self.meter)
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        # Last: where there is a cache there is all of the above.
        self._cache = torch.empty(n, D * len(self._tables()), dtype=self._host.dtype, device=device)

    # Learning

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients of all backward passes since the last step, and forget them."""
        self._settle()
        gradients, _ = self._learning
        if not gradients:
            return
        slots = torch.cat([self._slots(fetched) for fetched, _ in gradients])
        gradient = torch.cat([gradient for _, gradient in gradients]).to(self._cache.dtype)
        if len(gradients) > 1:
            slots, which = slots.unique(return_inverse=True)
            zeros = gradient.new_zeros(len(slots), gradient.shape[1])
            gradient = zeros.index_add_(0, which, gradient)
        record = self._cache.index_select(0, slots)
        updated = self._updated(record, gradient)
        if self.padding_idx is not None:
            still = slots == self._slot_of[self.padding_idx]
            updated = torch.where(still.unsqueeze(1), record, updated)
        self._stepped = True
        self._learning = [], (slots, updated, gradients)  # in one stroke the step is decided
        self._settle()

    def _settle(self) -> None:
        """Write what a step has decided. After an exception here, whatever comes next does it."""
        gradients, decided = self._learning
        if decided is not None:
            slots, updated, done = decided
            self._cache.index_copy_(0, slots, updated)
            for fetched, _ in done:
                fetched.done = True  # even where somebody keeps the graph
            self._learning = gradients, None

    def _updated(self, record: Tensor, gradient: Tensor) -> Tensor:
        """Rows and their state after a step, as torch.optim.SGD and Adagrad compute them."""
        if self.update == "sgd":
            return record.add(gradient, alpha=-self.lr)
        record = record.clone()
        rows, state = record.split(self.embedding_dim, 1)
        state.addcmul_(gradient, gradient)
        rows.addcdiv_(gradient, state.sqrt().add_(self.eps), value=-self.lr)
        return record

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients since the last step. (A parent's or an optimizer's does not.)"""
        self._learning[0].clear()
        super().zero_grad(set_to_none)

    # Coming home

    def flush(self) -> None:
        """Write every cached row, and its state, back to the host. The cache stays as it is."""
        with self._lock:
            self._settle()
            if self._cache is not None and self._stepped:
                self._write_back(self._resident().nonzero().flatten())
                self._seen, self._stepped = self._stamp, False

    def close(self) -> None:
        """Flush, and free the device's memory. The next look-up begins a new cache."""
        with self._lock:
            self.flush()
            self._forget()

    def _forget(self) -> None:
        hits = self.hits
        self._epoch += 1  # first: no slot of this cache is looked for in the next
        self._hits_before, self._cache = hits, None
        self._slot_of = self._id_of = self._count = None
        self._seen = self._stamp

    def _reread(self) -> None:
        """Begin a new cache where somebody else wrote into the host's table."""
        if self._stamp == self._seen:
            return
        if self._stepped:
            raise RuntimeError(
                "The weight was written to while the cache holds newer rows. Call flush() to keep "
                "those, or load_state_dict to have others; to write, read table.weight first."
            )
        self._forget()

    @property
    def hits(self) -> int:
        """Look-ups, of `lookups` in all, whose row was in the cache already."""
        return self._hits_before + (0 if self._cache is None else self._hits.item())

    def __getattr__(self, name: str) -> Any:
        # Whoever reads the weight wants what was learned. (A new table has no lock yet.)
        if name == "weight" and "_lock" in self.__dict__:
            self.flush()
        return super().__getattr__(name)

    def optimizer_state(self) -> dict[str, Tensor]:
        """A copy of what Adagrad remembers, {"sum": (V, D)}, up to date; empty under SGD."""
        self.flush()
        return {} if self.state is None else {"sum": self.state.clone()}

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `optimizer_state` gave. ValueError where it does not fit."""
        wanted = {} if self.state is None else {"sum": self.state}
        given, fits = ({n: tuple(t.shape) for n, t in s.items()} for s in (state, wanted))
        if given != fits:
            raise ValueError(
                f"The state holds {given}; a table with update={self.update!r} has {fits}."
            )
        with self._lock:  # or a prefetcher might cache what is replaced here
            self.close()
            for name, tensor in wanted.items():
                tensor.copy_(state[name])

    def _save_to_state_dict(self, *args: Any) -> None:
        self.flush()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        with self._lock:
            self.close()
            super()._load_from_state_dict(*args)
            if self.state is not None:
                self.state = self.state.to(self._host.dtype)  # assign=True may bring another
            self._seen = self._stamp

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CachedEmbedding:
        with self._lock:
            self.close()
            super()._apply(fn, recurse)
            self._seen = self._stamp
        return self

    def __getstate__(self) -> dict[str, Any]:
        own = {"_lock", "_learning", "_in_use", "_seen"}
        with self._lock:
            self.close()
            state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()


def _beside_each_other(parts: list[Tensor]) -> Tensor:
    """Host tensors (U, D) as one (U, n · D), pinned if they are."""
    pinned = parts[0].is_pinned()
    shape = len(parts[0]), sum(part.shape[1] for part in parts)
    out = torch.empty(shape, dtype=parts[0].dtype, device=CPU, pin_memory=pinned)
    return torch.cat(parts, 1, out=out)
