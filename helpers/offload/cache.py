"""Hot rows of host tables, kept on a device: which are there, and the way in and out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from . import crossing
from .crossing import CPU, Meter
from .table import LookUp

OWN, IN_USE = 2**31 - 1, 2**31 - 2  # in the place of a count: rows that are not to be evicted


class Cache:
    """`rows` slots on a device for the rows of one or more host tables, (V, D) each, side by side.

    Only `slot_of` decides in which slot an id's row is, or -1 for none. `id_of` says whose row was
    last put into a slot, and is valid only where `slot_of` agrees. So a row is in the cache from
    the moment that `slot_of` says so, and after an exception between any two operations each row is
    either here or on the host with its newest numbers.

    Args:
        tables: on the host, all of one dtype; rows come from them and go back to them.
        rows: how many slots there are.
        device: where they are.
        counts: (V,) decides which rows stay; None: learned, by counting the batches that ask.
        meter: counts what crosses.
    """

    def __init__(
        self, tables: list[Tensor], rows: int, device: torch.device, counts: Tensor | None,
        meter: Meter,
    ) -> None:  # fmt: skip
        V, width = len(tables[0]), sum(table.shape[1] for table in tables)
        self.tables, self.device, self.meter, self.learns = tables, device, meter, counts is None
        self.record = torch.empty(rows, width, dtype=tables[0].dtype, device=device)
        self.slot_of = torch.full((V,), -1, dtype=torch.int32, device=device)
        self.id_of = torch.full((rows,), -1, device=device)
        if counts is None:
            self.counts = torch.zeros(V, dtype=torch.int32, device=device)
        else:
            counts = counts.to(CPU).clamp(0, IN_USE - 1).int()
            self.counts = crossing.to_device(counts, device, meter)
        self.lookups, self.found = 0, torch.zeros((), dtype=torch.int64, device=device)
        self.newer = False  # whether rows may be newer than the host's
        self.epoch = object()  # replaced when rows in use lose their slots

    def admit(self, wanted: LookUp, in_use: Iterable[LookUp], ahead: bool = False) -> bool:
        """Give each of the distinct ids a slot, evicting rows with the smallest counts.

        With `ahead`, returns False rather than evict a row that is in use. RuntimeError if
        there are more distinct ids than slots.
        """
        ids, first = wanted.distinct, wanted.slots is None
        slots = self.slot_of[ids].long()
        there = slots >= 0
        missing = ids[~there]
        if len(missing):
            free = self._room_for(len(missing), slots[there], in_use, ahead)
            if free is None:
                return False
            on_host = crossing.to_host(missing, self.meter)
            record = crossing.gathered(self.tables, on_host, self.device)
            self.record.index_copy_(0, free, crossing.to_device(record, self.device, self.meter))
            self.id_of[free] = missing
            self.slot_of[missing] = free.int()
        if first:
            self.lookups += wanted.inverse.numel()
            self.found += there[wanted.inverse].sum()
            if self.learns:
                self.counts[ids] += 1
        wanted.slots = self.slot_of[ids].long()
        wanted.epoch = self.epoch  # last: it makes the slots valid
        return True

    def _room_for(
        self, missing: int, own: Tensor, in_use: Iterable[LookUp], ahead: bool
    ) -> Tensor | None:
        """As many slots: the free ones first, then those of the smallest counts, written back."""
        rank = self.counts[self.id_of.clamp(min=0)]
        rank[~self.taken()] = -1
        for one in in_use:
            if one.epoch is self.epoch:
                rank[one.slots] = IN_USE
        rank[own] = OWN
        smallest, slots = rank.topk(min(missing, len(rank)), largest=False)
        too_many = missing > len(slots) or (smallest == OWN).any()
        needs_those_in_use = (smallest == IN_USE).any()
        if ahead and (too_many or needs_those_in_use):
            return None
        if too_many:
            raise RuntimeError(
                f"A cache of {len(rank):,} rows cannot hold the {missing + len(own):,} different "
                "rows that a batch, or the batches of one step, look up. Give it more rows, or "
                "smaller batches, or step more often."
            )
        if needs_those_in_use:
            self.epoch = object()  # whoever uses them will ask again
        evicted = slots[smallest >= 0]
        if len(evicted):
            if self.newer:
                self.write_back(evicted)
            self.slot_of[self.id_of[evicted]] = -1
        return slots

    def taken(self) -> Tensor:
        """(rows,) bool: whether a row lies in the slot."""
        slots = torch.arange(len(self.id_of), device=self.device)
        return (self.id_of >= 0) & (self.slot_of[self.id_of.clamp(min=0)] == slots)

    def write_back(self, slots: Tensor) -> None:
        """Copy the rows in these slots to the host; they stay where they are."""
        ids = crossing.to_host(self.id_of[slots], self.meter)
        record = crossing.to_host(self.record[slots], self.meter)
        widths = [table.shape[1] for table in self.tables]
        for table, part in zip(self.tables, record.split(widths, 1), strict=True):
            table.index_copy_(0, ids, part)

    def flush(self) -> None:
        """Write every row back that may be newer than the host's."""
        if self.newer:
            self.write_back(self.taken().nonzero().flatten())
            self.newer = False
