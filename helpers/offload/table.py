"""A table that stays in host memory: nn.Embedding, of which only a batch's distinct rows cross."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import crossing
from .crossing import CPU, Meter


@dataclass(eq=False)
class LookUp:
    """One tensor of ids, and what has been fetched for it."""

    distinct: Tensor  # (U,) the distinct ids, sorted; on the host (a cache has them on the device)
    inverse: Tensor  # the ids' shape, on the device: which of the distinct each id is
    rows: Tensor | None = None  # (U, D) on the device
    late: Tensor | None = None  # (U,) bool, on the host: whose rows are still to be fetched
    slots: Tensor | None = None  # (U,) on the device: where a cache has the rows
    epoch: object = None  # of the cache that the slots are in


class OffloadedEmbedding(nn.Embedding):
    """nn.Embedding whose weight stays in host memory: only the rows of a batch cross.

    Constructor, from_pretrained, forward, gradients and state_dict are nn.Embedding's, with these
    differences, all of them:

    - `sparse` is True by default: the gradient is a sparse tensor on the host, each row once,
      sorted. SGD, Adagrad or SparseAdam step it there. With sparse=False it is dense, (V, D), for
      any optimizer. `scale_grad_by_freq` works with either.
    - `device` is where the output lands; None stands for wherever the ids are. `.to(device)` and
      `.cuda()` set it and leave the weight where it is, `.cpu()` takes it back. A change of dtype
      is honoured.
    - The weight always has numbers, and on the host: inside `with torch.device("meta")` too, and
      after `.to("meta")` or `to_empty` on a device. Rows wanted on meta have a shape and no more.
      A weight on meta or a sparse one, given or loaded, is refused.
    - Refused by PyTorch in its own words: forward-mode derivatives, ids or weights batched by
      torch.vmap, nested ids, torch.compile with fullgraph=True, torch.jit, and torch.fx but as a
      leaf. torch.compile leaves the look-up out; torch.export sees a plain nn.Embedding.

    For N ids of i bytes each, U of them distinct, and rows of D numbers of s bytes, the `meter`
    counts to the byte

    - forward, to the device: U · D · s, and N · i if the ids are on the host and the output is not;
    - forward, to the host: U · i, the distinct ids, found where the output lands (and N · i if the
      ids are on a device and the output is not);
    - backward, to the host: U · D · s. (A gradient of the gradient is right, and not counted.)

    Args:
        num_embeddings ... dtype: as nn.Embedding, but for the above.
        meter: counts what crosses; several tables may share one. Default: one of its own.

    Raises:
        ValueError: a weight on meta, or sparse, or not of shape (V, D).
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
        if _weight is not None:
            _weight = _on_host(_weight)
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type,
                         scale_grad_by_freq, sparse, _weight, _freeze, CPU, dtype)  # fmt: skip
        self.device = None if device is None else torch.empty(0, device=device).device
        self.meter = Meter() if meter is None else meter
        self._forget_watch()

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
        if torch.compiler.is_exporting():
            return F.embedding(input, self._current(), self.padding_idx, self.max_norm,
                               self.norm_type, self.scale_grad_by_freq, self.sparse)  # fmt: skip
        return uncompiled(self._look_up)(input)

    def _look_up(self, ids: Tensor) -> Tensor:
        weight = self._current()
        found = self._taken(ids)
        if found is None:
            brought = self._brought(ids, weight)
            if brought.is_meta:
                return F.embedding(brought, weight.to("meta"))
            found = self._distinct(brought, weight, ids.device)
        rows = self._rows(found, weight)
        # Each id's row: PyTorch's own look-up in the small table of distinct rows finds it.
        return F.embedding(found.inverse, rows, scale_grad_by_freq=self.scale_grad_by_freq)

    def _current(self) -> Tensor:
        return self.weight  # read once in a look-up: a parametrized one is computed at each reading

    def _rows(self, found: LookUp, weight: Tensor) -> Tensor:
        """The rows of the distinct ids, (U, D), on the device, as a function of the weight."""
        if self.max_norm is not None:
            host = weight.detach()
            torch.embedding_renorm_(host, found.distinct, self.max_norm, self.norm_type)
        if found.rows is None or found.rows.dtype != weight.dtype:
            found.rows = self._sent(found.distinct, found.inverse.device, weight)
        elif found.late is not None:
            self._fill(found, found.late, weight)
        return _Rows.apply(weight, found.rows, found.distinct, self)

    def _brought(self, ids: Tensor, weight: Tensor) -> Tensor:
        """The ids where the output is to land, checked first if they are on the host."""
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int32, torch.int64):
            wrong = ids
            if isinstance(ids, Tensor):
                wrong = torch.empty(0, dtype=ids.dtype, device=CPU)
            F.embedding(wrong, weight)  # raises the error that nn.Embedding would
        device = ids.device if self.device is None else self.device
        if ids.device == device:
            return ids
        if ids.device == CPU:
            if ids.numel():
                check(weight, *ids.aminmax())
            return crossing.to_device(ids, device, self.meter)
        ids = crossing.to_host(ids, self.meter)
        return ids if device == CPU else crossing.to_device(ids, device, self.meter)

    def _distinct(self, ids: Tensor, weight: Tensor, came_from: torch.device) -> LookUp:
        """The distinct ids, sorted, on the host, and on the device which of them each id is."""
        on_device, inverse = ids.unique(return_inverse=True)
        distinct = crossing.to_host(on_device, self.meter)
        if len(distinct):
            check(weight, distinct[0], distinct[-1])
        return LookUp(distinct, inverse)

    def _sent(self, distinct: Tensor, device: torch.device, weight: Tensor) -> Tensor:
        rows = crossing.gathered([weight.detach()], distinct, device)
        return crossing.to_device(rows, device, self.meter)

    def _fill(self, found: LookUp, wanted: Tensor, weight: Tensor) -> None:
        """Fetch the rows where `wanted`, (U,) bool, is true into their places."""
        device = found.inverse.device
        rows = self._sent(found.distinct[wanted], device, weight)
        found.rows[crossing.to_device(wanted, device, self.meter)] = rows

    # What a Prefetcher asks of a table. (A cache answers in its own way.)

    _max_norm_ahead = False  # whether rows may be fetched ahead that a look-up shortens

    def _taken(self, ids: Tensor) -> LookUp | None:
        """What a Prefetcher has ready for these ids."""
        for waiting in self._ahead:
            if waiting.is_for(ids):
                self._ahead.remove(waiting)
                return waiting.handed_over(ids)
        return None

    def _busy(self) -> list[LookUp]:
        """What the running batch is at work on."""
        return [waiting.found for waiting in self._ahead]

    def _alone(self) -> AbstractContextManager:
        """Keeps others from what fetching changes: nothing here."""
        return nullcontext()

    def _fetched_ahead(self, ids: Tensor, busy: list[LookUp]) -> LookUp:
        """All rows but the busy ones, which the running step will change."""
        weight = self._weight.detach()  # the numbers of now, even if .double() comes in between
        found = self._distinct(self._brought(ids, weight), weight, ids.device)
        size, device = (len(found.distinct), weight.shape[1]), found.inverse.device
        found.rows = torch.empty(size, dtype=weight.dtype, device=device)
        found.late = among(found.distinct, [b.distinct for b in busy], len(weight))
        self._fill(found, ~found.late, weight)
        return found

    @property
    def _weight(self) -> Tensor:
        """The weight as it stands on the host. (In a cached table, `weight` brings it up to date.)

        A Prefetcher and a cache remember its rows, so it has to be a plain parameter.
        """
        weight = self._parameters.get("weight")
        if not isinstance(weight, nn.Parameter):
            raise TypeError(
                "The weight is no plain nn.Parameter: it is parametrized or pruned, or another was "
                "put in its place, as functional_call does. An OffloadedEmbedding without a "
                "Prefetcher takes such a weight; a Prefetcher and a CachedEmbedding do not."
            )
        return weight

    def _stamp(self) -> tuple[int, int]:
        """A value that changes with each write to the weight, and with each new weight."""
        weight = self._weight
        if weight is not self._watched[0]:
            self._watched = (weight,)  # a tuple, or nn.Module would take it for a parameter
            self._changes += 1
        return self._changes, writes(weight)

    def _forget_watch(self) -> None:
        self._ahead: list = []  # what Prefetchers have ready
        self._watched, self._changes = (None,), 0

    # Moving, loading, copying

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OffloadedEmbedding:
        """What .to(), .cuda(), .half() ... call: it may change the dtype, never the memory."""
        dtype = next((p.dtype for p in self.parameters()), torch.get_default_dtype())
        output = torch.empty(0, dtype=dtype, device=self.device or CPU)
        moved = fn(output).device
        if moved != output.device:
            self.device = None if moved == CPU else moved
        self._changes += 1
        probe = fn(torch.empty(0, dtype=dtype, device=CPU))
        if probe.device == CPU:
            return super()._apply(fn, recurse)
        return super()._apply(lambda tensor: tensor.to(probe.dtype), recurse)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        given = state.get(prefix + "weight")
        if isinstance(given, Tensor):
            state = {**state, prefix + "weight": _on_host(given)}
        self._changes += 1
        super()._load_from_state_dict(state, prefix, *others)

    def __getstate__(self) -> dict[str, Any]:
        own = {"_ahead", "_watched", "_changes"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_watch()

    def extra_repr(self) -> str:
        where = "the ids' device" if self.device is None else self.device
        return f"{super().extra_repr()}, weight on the host, output on {where}"


class _Rows(torch.autograd.Function):
    """Rows that were fetched from a table, and the way of their gradient back to it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, rows: Tensor, distinct: Tensor, table: Any) -> Tensor:
        return rows.view_as(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        weight, _, ctx.distinct, ctx.table = inputs
        ctx.shape = weight.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        whole = uncompiled(_gradient)(gradient, ctx.distinct.long(), ctx.shape, ctx.table)
        return whole, None, None, None


def _gradient(values: Tensor, distinct: Tensor, shape: torch.Size, table: Any) -> Tensor:
    """The weight's gradient, of the rows' (U, D): sparse, each row once, or dense, (V, D)."""
    values = crossing.to_host(values, table.meter)
    if table.padding_idx is not None:
        learns = distinct != table.padding_idx
        distinct, values = distinct[learns], values[learns]
    if not table.sparse:
        return values.new_zeros(shape).index_copy(0, distinct, values)
    return torch.sparse_coo_tensor(
        distinct.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False
    )


def uncompiled(function: Callable) -> Callable:
    """The function, left out by torch.compile: what crosses depends on the numbers of the ids."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def with_signature(function: type[torch.autograd.Function]) -> None:
    """PyTorch asks for it at each call, and working it out takes as long as a small look-up."""
    function.forward.__signature__ = inspect.signature(function.forward)


with_signature(_Rows)


def _on_host(weight: Tensor) -> Tensor:
    """A weight that is given or loaded, in host memory. ValueError where there is none to have."""
    if weight.is_meta or weight.layout != torch.strided:
        what = "on meta, without numbers" if weight.is_meta else f"of layout {weight.layout}"
        raise ValueError(
            f"This weight, {tuple(weight.shape)}, is {what}. A table on the host takes a dense "
            "tensor with numbers: give that, or leave it out, and the table makes its own."
        )
    return weight.to(CPU)


def check(weight: Tensor, smallest: Tensor, largest: Tensor) -> None:
    """nn.Embedding's error where one of these two ids, on the host, is out of range."""
    if smallest.item() < 0 or largest.item() >= len(weight):
        F.embedding(torch.stack((smallest, largest)), weight.detach())


def writes(tensor: Tensor) -> int:
    """How often a tensor was written in place. (In inference mode nobody counts.)"""
    return 0 if tensor.is_inference() else tensor._version


def among(distinct: Tensor, rows: list[Tensor], V: int) -> Tensor:
    """For each of the distinct ids, whether it is one of `rows`."""
    marked = torch.zeros(V, dtype=torch.bool, device=CPU)
    for some in rows:
        marked[some.long()] = True
    return marked[distinct.long()]
