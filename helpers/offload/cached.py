"""A table on the host whose hot rows are kept, and updated, on the device."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from . import crossing
from .cache import Cache
from .crossing import CPU, Meter
from .table import LookUp, OffloadedEmbedding, check, uncompiled, with_signature

INSTEAD = "use OffloadedEmbedding."


class CachedEmbedding(OffloadedEmbedding):
    """An OffloadedEmbedding that keeps its hot rows on the device and updates them there.

    A row's newest value lives where the row lives, so the table owns its update: call `step()`
    after backward. No optimizer need hold it; one that does finds no gradient and leaves it alone.

        table = CachedEmbedding(20_000_000, 128, rows=1_000_000, update="adagrad", lr=0.05)
        loss = model(batch)
        loss.backward()
        optimizer.step()  # the rest of the model
        table.step()

    Every row of a batch gets a slot of the cache. What is missing is fetched; where no slot is
    free, the rows with the smallest counts that nobody is using are evicted, that is, written
    back to the host with their optimizer state. The result is that of nn.Embedding under
    torch.optim.SGD or Adagrad, to rounding. Reading `table.weight`, state_dict, pickling, moving
    the table to another device or dtype, and `close()` write everything back first. `parameters()`,
    and the tensor that the table was made from, do not: call `flush()` before.

    The weight gets no gradient, torch.autograd.grad finds none, and what would read or change one
    is refused. What a user does with an optimizer is done with the table in its place:
    `scaler.step(table)` under a GradScaler, followed by `table.zero_grad()`; clipping and rates by
    `table.param_groups`. It learns in one process: for DDP use OffloadedEmbedding. A step is
    applied as a whole or not at all, and after an exception between any two operations each row is
    either in the cache or on the host, with all its updates.

    For a batch of N ids of i bytes, M distinct rows missing, E evicted (of those that may be newer
    than the host's: none until a step is made), and r bytes for a row and its state (D · s under
    SGD, 2 · D · s under Adagrad), the `meter` counts

    - to the device: M · r, and N · i if the ids are on the host and the cache is not (and 4 · V for
      given counts, when a cache begins);
    - to the host: M · 8 + E · (8 + r); and if the ids are on a device, 2 · i, the smallest and the
      largest id, where the cache is on a device too, N · i where it is on the host.

    On the device lie the cache, rows · r bytes, and a directory of 8 bytes for each of the V rows
    and for each row of the cache.

    Args:
        rows: how many rows the cache holds; at least as many as a batch has distinct ids, and
            twice as many if a Prefetcher is to fetch ahead.
        update: "sgd" or "adagrad". `lr` may be changed between steps (`table.lr = 0.01`).
        eps, initial_accumulator_value: as in torch.optim.Adagrad.
        counts: (V,) how often each id is looked up, which decides what stays. Default: learned,
            by counting the batches in which a row is asked for.
        The others: as OffloadedEmbedding. There is no `sparse`: no gradient of the table is made.

    Raises:
        ValueError: a size, rate or update that makes no sense, or counts of another shape.
        TypeError: from forward, for a weight that is no plain parameter.
        RuntimeError: from forward, where a batch has more distinct ids than the cache has rows.
    """

    _max_norm_ahead = True

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
        if rows < 1:
            raise ValueError(f"rows={rows}: a cache holds at least one row.")
        if update not in ("sgd", "adagrad"):
            raise ValueError(
                f'update={update!r}: "sgd" and "adagrad" are known. For another optimizer {INSTEAD}'
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
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type,
                         scale_grad_by_freq, sparse, _weight, _freeze, device, dtype,
                         meter)  # fmt: skip
        if not sparse:
            raise ValueError(
                "sparse=False asks for a dense gradient, and a cached table makes none: it updates "
                "its rows itself. Leave sparse out, or use OffloadedEmbedding."
            )
        self.cache_rows, self.update = min(rows, num_embeddings), update
        self._group, self.eps = {"lr": lr}, eps
        self.counts = counts
        state = None
        if update == "adagrad":
            state = torch.full_like(self._weight, start, requires_grad=False)
        self.register_buffer("state", state, persistent=False)  # on the host, beside the weight
        self._before = 0, 0  # look-ups and hits of caches that are closed
        self._begin()

    def _begin(self) -> None:
        # A prefetching thread holds the lock while it takes slots. It takes none that are in use,
        # and leaves it to the other thread to begin a new cache: so a batch that was fetched ahead
        # is looked up without the lock.
        self._lock = threading.RLock()
        self._cache: Cache | None = None  # made on the device by the first look-up
        self._in_use: weakref.WeakSet[LookUp] = weakref.WeakSet()  # till the step, or graph's end
        self._learning: tuple[list, tuple | None] = [], None  # gradients; what a step has decided
        self._seen = self._stamp()

    # Looking up

    def _current(self) -> Tensor:
        self._settle()
        if torch.compiler.is_exporting() and self._cache is not None and self._cache.newer:
            raise RuntimeError("The cache holds newer rows than the weight: flush() before export.")
        return self._weight

    def _rows(self, found: LookUp, weight: Tensor) -> Tensor:
        if torch.is_grad_enabled() and weight.requires_grad:
            self._refuse_gradients_of_the_weight()
        with nullcontext() if self._has_slots(found) else self._lock:
            cache = self._with_slots(found)
            held = cache.record[:, : self.embedding_dim]
            rows = held.index_select(0, found.slots)
            if self.max_norm is not None:
                every = torch.arange(len(rows), device=rows.device)
                torch.embedding_renorm_(rows, every, self.max_norm, self.norm_type)
                cache.newer = True
                held.index_copy_(0, found.slots, rows)
        return _Learned.apply(weight, rows, found, self)

    def _collect(self, found: LookUp, gradient: Tensor, weight: Tensor) -> None:
        if weight is not self._parameters.get("weight"):
            raise RuntimeError(
                "This gradient belongs to a weight that the table has no more. A CachedEmbedding "
                f"learns for its own; {INSTEAD}"
            )
        if gradient.requires_grad:
            raise RuntimeError(f"A CachedEmbedding has no gradient of its gradient; {INSTEAD}")
        if found not in self._in_use:  # a graph that outlived its step
            with self._lock:
                self._in_use.add(found)
        self._learning[0].append((found, gradient))

    def _distinct(self, ids: Tensor, weight: Tensor, came_from: torch.device) -> LookUp:
        """The distinct ids where the ids are. (What came from the host was checked there.)"""
        distinct, inverse = ids.unique(return_inverse=True)
        if len(distinct) and (distinct.device == CPU or came_from != CPU):
            ends = torch.stack((distinct[0], distinct[-1]))
            check(weight, *(ends if ends.device == CPU else crossing.to_host(ends, self.meter)))
        return LookUp(distinct.long(), inverse)

    def _has_slots(self, found: LookUp) -> bool:
        cache = self._cache
        return cache is not None and found.epoch is cache.epoch and self._stamp() == self._seen

    def _with_slots(self, found: LookUp) -> Cache:
        """The cache, in which `found` has slots; a new one where the weight was written to."""
        if self._has_slots(found):
            return self._cache
        if self._stamp() != self._seen:
            if self._cache is not None and self._cache.newer:
                raise RuntimeError(
                    "The weight was written to while the cache holds newer rows. Call flush() to "
                    "keep those, or load_state_dict to have others; to write, read table.weight "
                    "first."
                )
            self._forget()
        elif self._cache is not None and self._cache.device != found.distinct.device:
            self.close()
        if self._cache is None:
            self._cache = self._opened(found.distinct.device)
        self._in_use.add(found)
        self._cache.admit(found, list(self._in_use))
        return self._cache

    @torch.inference_mode(False)  # or no training could follow
    def _opened(self, device: torch.device) -> Cache:
        return Cache(self._tables(), self.cache_rows, device, self.counts, self.meter)

    def _tables(self) -> list[Tensor]:
        # .data: writing back must not raise the version, which is for others' writes.
        return [self._weight.data] + ([] if self.state is None else [self.state])

    # What a Prefetcher asks

    def _busy(self) -> list[LookUp]:
        return list(self._in_use)

    def _alone(self) -> AbstractContextManager:
        return self._lock

    def _fetched_ahead(self, ids: Tensor, busy: list[LookUp]) -> LookUp:
        """Slots ahead of their turn. No step changes the missing rows, which are on the host."""
        weight = self._weight
        found = self._distinct(self._brought(ids, weight), weight, ids.device)
        cache, busy = self._cache, [*busy, *self._in_use]
        if cache is not None and cache.device == found.distinct.device:
            if self._stamp() == self._seen and cache.admit(found, busy, ahead=True):
                self._in_use.add(found)
        return found

    # Learning

    @property
    def lr(self) -> float:
        return self._group["lr"]

    @lr.setter
    def lr(self, lr: float) -> None:
        self._group["lr"] = lr

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As an optimizer's: the rate, and in params' `.grad` the gradients that wait."""
        self._group["params"] = []
        for _, gradient in self._learning[0]:
            param = gradient.new_empty(()).expand(gradient.shape)
            param.grad = gradient
            self._group["params"].append(param)
        return [self._group]

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients of all backward passes since the last step, and forget them."""
        with self._lock:
            self._settle()
            self._refuse_gradients_of_the_weight()
            gradients, _ = self._learning
            if not gradients:
                return
            found, gradient = gradients[0]
            if len(gradients) > 1:
                each = torch.cat([found.distinct for found, _ in gradients])
                distinct, inverse = each.unique(return_inverse=True)
                found = LookUp(distinct, inverse, slots=inverse)  # not None: not counted again
                gradient = torch.cat([gradient for _, gradient in gradients])
                zeros = gradient.new_zeros(len(distinct), gradient.shape[1])
                gradient = zeros.index_add_(0, inverse, gradient)
            cache = self._with_slots(found)
            record = cache.record.index_select(0, found.slots)
            updated = self._updated(record, gradient.to(record.dtype))
            if self.padding_idx is not None:
                still = found.distinct == self.padding_idx
                updated = torch.where(still.unsqueeze(1), record, updated)
            cache.newer = True
            self._learning = [], (found, updated, gradients)  # in one stroke the step is decided
            self._settle()

    def _settle(self) -> None:
        """Write what a step has decided. After an exception here, whatever comes next does it."""
        if self._learning[1] is None:
            return
        with self._lock:
            gradients, (found, updated, done) = self._learning
            self._cache.record.index_copy_(0, found.slots, updated)
            for one, _ in done:
                self._in_use.discard(one)  # even where somebody keeps the graph
            self._learning = gradients, None

    def _refuse_gradients_of_the_weight(self) -> None:
        weight = self._weight
        hooks = weight._backward_hooks or weight._post_accumulate_grad_hooks
        if hooks or weight.grad is not None:
            what = "has hooks" if hooks else "got a gradient, of a penalty or a tied layer say"
            raise RuntimeError(
                f"The weight itself {what}. A CachedEmbedding learns from its look-ups alone, and "
                f"its weight gets no gradient from them; {INSTEAD}"
            )

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
            if self._cache is not None and self._cache.newer:
                self._cache.flush()
                self._seen = self._stamp()

    def close(self) -> None:
        """Flush, and free the device's memory. The next look-up begins a new cache."""
        with self._lock:
            self.flush()
            self._forget()

    def _forget(self) -> None:
        before = self.lookups, self.hits
        self._cache, self._seen = None, self._stamp()
        self._before = before

    @property
    def lookups(self) -> int:
        """How many ids have been looked up."""
        return self._before[0] + (0 if self._cache is None else self._cache.lookups)

    @property
    def hits(self) -> int:
        """How many of the look-ups found their row in the cache already."""
        return self._before[1] + (0 if self._cache is None else self._cache.found.item())

    def __getattr__(self, name: str) -> Any:
        # Whoever reads the weight wants what was learned. (A new table has no lock yet.)
        if name == "weight" and "_lock" in self.__dict__:
            uncompiled(self.flush)()
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
                self.state = self.state.to(self._weight.dtype)  # assign=True may bring another
            self._seen = self._stamp()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CachedEmbedding:
        with self._lock:
            self.close()
            super()._apply(fn, recurse)
            self._seen = self._stamp()
        return self

    def __getstate__(self) -> dict[str, Any]:
        own = {"_lock", "_learning", "_in_use", "_seen", "_cache"}
        with self._lock:
            self.close()
            state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()


class _Learned(torch.autograd.Function):
    """Rows out of a cache, whose gradient is collected for the table's own step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, rows: Tensor, found: LookUp, table: Any) -> Tensor:
        return rows.view_as(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.weight, _, ctx.found, ctx.table = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        uncompiled(ctx.table._collect)(ctx.found, gradient, ctx.weight)
        return None, None, None, None


with_signature(_Learned)
