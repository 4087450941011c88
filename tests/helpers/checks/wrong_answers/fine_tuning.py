"""Lesson 08: wrong answers that readers give, and a part of the hint that each should get."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim


def grouped(tables, rest, kind=optim.Adam, is_table=(nn.Embedding, nn.EmbeddingBag), frozen=False):
    """An answer to exercise 1 with these options for the two groups."""

    def optimizer_for(model, table_rate, head_rate):
        found = [m for m in model.modules() if isinstance(m, is_table)]
        mine = [p for table in found for p in table.parameters()]
        free = [p for p in model.parameters() if p.requires_grad or frozen]
        inside = [any(p is q for q in mine) for p in free]
        rates = {"table": table_rate, "head": head_rate}
        groups = [
            {"params": [p for p, i in zip(free, inside, strict=True) if i], **tables},
            {"params": [p for p, i in zip(free, inside, strict=True) if not i], **rest},
        ]
        for group in groups:
            group["lr"] = rates[group["lr"]]
        return kind(groups)

    return optimizer_for


def weights_only(model, table_rate, head_rate):
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return optim.Adam(
        [
            {"params": [m.weight for m in tables], "lr": table_rate},
            {"params": [m.weight for m in linear], "lr": head_rate},
        ]
    )


def table_twice(model, table_rate, head_rate):
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    return optim.Adam(
        [
            {"params": [m.weight for m in tables], "lr": table_rate},
            {"params": model.parameters(), "lr": head_rate},
        ]
    )


def own_parameters(model, table_rate, head_rate):
    groups = {True: [], False: []}
    for m in model.modules():
        free = [p for p in m.parameters(recurse=False) if p.requires_grad]
        groups[isinstance(m, nn.Embedding | nn.EmbeddingBag)] += free
    return optim.Adam(
        [{"params": groups[True], "lr": table_rate}, {"params": groups[False], "lr": head_rate}]
    )


def children_only(model, table_rate, head_rate):
    tables = {p for m in model.children() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
              for p in m.parameters()}  # fmt: skip
    free = [p for p in model.parameters() if p.requires_grad]
    return optim.Adam(
        [
            {"params": [p for p in free if p in tables], "lr": table_rate},
            {"params": [p for p in free if p not in tables], "lr": head_rate},
        ]
    )


def by_type(model, table_rate, head_rate):
    tables = {p for m in model.modules() if type(m) in (nn.Embedding, nn.EmbeddingBag)
              for p in m.parameters()}  # fmt: skip
    free = [p for p in model.parameters() if p.requires_grad]
    return optim.Adam(
        [
            {"params": [p for p in free if p in tables], "lr": table_rate},
            {"params": [p for p in free if p not in tables], "lr": head_rate},
        ]
    )


def thaws(model, table_rate, head_rate):
    model.requires_grad_(True)
    return grouped(TABLE, HEAD)(model, table_rate, head_rate)


def a_group_each(model, table_rate, head_rate):
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
              for p in m.parameters()}  # fmt: skip
    groups = []
    for p in filter(lambda p: p.requires_grad, model.parameters()):
        inside = id(p) in tables
        rate = table_rate if inside else head_rate
        groups.append({"params": [p], "lr": rate})
    return optim.Adam(groups)


def added_later(model, table_rate, head_rate):
    optimizer = grouped(TABLE, HEAD)(model, np.float64(table_rate), torch.tensor(head_rate))
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
    return optimizer


TABLE, HEAD = {"lr": "table"}, {"lr": "head"}
READ = {"A": "tuned is better", "B": "no telling yet", "C": "within half a point"}


class TwoTables(nn.Module):
    """What the exercise gives: the rows twice, and which are free."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("kept", rows.detach().clone())
        self.register_buffer("free", free.clone())
        self.learned = nn.Parameter(rows.detach().clone())


class Masked(nn.Module):
    """A whole table whose frozen rows get a gradient of zero."""

    def __init__(self, rows, free):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(rows.clone(), freeze=False)
        self.table.weight.register_hook(lambda g: g * free[:, None])

    def forward(self, ids):
        return self.table(ids)


class Plain(nn.Module):
    """Where free rows are looked up in a parameter and the rest in a plain attribute."""

    def __init__(self, rows, free):
        super().__init__()
        self.rows, self.free = rows.clone(), free
        self.learned = nn.Parameter(rows.clone())

    def forward(self, ids):
        return torch.where(self.free[ids][..., None], self.learned[ids], self.rows[ids])


class MaskLeftBehind(Plain):
    def __init__(self, rows, free):
        super().__init__(rows, free)
        del self.rows
        self.register_buffer("rows", rows.clone())


class Shared(Plain):
    def __init__(self, rows, free):
        super().__init__(rows, free)
        self.learned = nn.Parameter(rows)


class SharedBuffer(Plain):
    """Right, until load_state_dict writes into the buffer."""

    def __init__(self, rows, free):
        super().__init__(rows, free)
        del self.rows, self.free
        self.register_buffer("rows", rows)
        self.register_buffer("free", free)


class NoAxis(SharedBuffer):
    """A mask that lacks the rows' axis."""

    def forward(self, ids):
        return torch.where(self.free[ids], self.learned[ids], self.rows[ids])


class AllFrozen(Plain):
    def __init__(self, rows, free):
        super().__init__(rows, free)
        del self.learned
        self.register_buffer("learned", rows.clone())


class InOrder(nn.Module):
    """The free rows first, the frozen after them, and ids as they come."""

    def __init__(self, rows, free):
        super().__init__()
        self.learned = nn.Parameter(rows[free].clone())
        self.register_buffer("kept", rows[~free].clone())

    def forward(self, ids):
        return torch.cat([self.learned, self.kept])[ids]


class WritesIntoTheTable(nn.Module):
    """Right for ids of one dimension or more; a single id gives a view."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("rows", rows.clone())
        self.register_buffer("free", free.clone())
        self.learned = nn.Parameter(rows.clone())

    def forward(self, ids):
        out, free = self.rows[ids], self.free[ids]
        out[free] = self.learned[ids][free]
        return out


class Detached(Plain):
    def forward(self, ids):
        return super().forward(ids).detach() + 0 * self.learned.sum()


class Swapped(TwoTables):
    def forward(self, ids):
        return torch.where(self.free[ids].unsqueeze(-1), self.kept[ids], self.learned[ids])


class MaskOfAllRows(TwoTables):
    def forward(self, ids):
        return torch.where(self.free.unsqueeze(-1), self.learned[ids], self.kept[ids])


class StillInEval(TwoTables):
    """Right while it trains; after .eval() nothing of it is there."""

    def forward(self, ids):
        if not self.training:
            return self.kept[ids]
        return torch.where(self.free[ids].unsqueeze(-1), self.learned[ids], self.kept[ids])


class ByMask(TwoTables):
    """Right: only free places are written, into a copy."""

    def forward(self, ids):
        out = self.kept[ids].clone()
        mask = self.free[ids]
        out[mask] = self.learned[ids[mask]]
        return out


class Scattered(TwoTables):
    """Right: the learned rows of the free places are put in one after the other."""

    def forward(self, ids):
        mask = self.free[ids].unsqueeze(-1).expand(*ids.shape, self.kept.shape[1])
        return self.kept[ids].masked_scatter(mask, self.learned[ids][mask])


class PutBack(TwoTables):
    """Right: whatever an optimizer did, a look-up gives the rows that were kept."""

    def forward(self, ids):
        self.learned.data[~self.free] = self.kept[~self.free]
        return F.embedding(ids, self.learned)


class Difference(nn.Module):
    """A learned difference from the given rows: weight decay pulls to them, not to zero."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("rows", rows.clone())
        self.register_buffer("free", free[:, None].to(rows.dtype))
        self.difference = nn.Parameter(torch.zeros_like(rows))

    def forward(self, ids):
        return self.rows[ids] + self.free[ids] * self.difference[ids]


class NeedsAFreeRow(nn.Module):
    """The free rows alone in a parameter: no row to take where none is free."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("rows", rows.clone())
        self.register_buffer("free", free.clone())
        self.register_buffer("place", (free.cumsum(0) - 1).clamp(min=0))
        self.learned = nn.Parameter(rows[free].clone())

    def forward(self, ids):
        learned = F.embedding(self.place[ids], self.learned)
        return torch.where(self.free[ids].unsqueeze(-1), learned, F.embedding(ids, self.rows))


class Compact(nn.Module):
    """Right: the free rows alone learn, behind one row that nobody reads."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("kept", rows.clone())
        self.register_buffer("place", free.cumsum(0) * free)
        self.learned = nn.Parameter(torch.cat([rows[:1] * 0, rows[free]]))

    def forward(self, ids):
        place = self.place[ids]
        free = (place > 0).unsqueeze(-1)
        return torch.where(free, self.learned[place], F.embedding(ids, self.kept))


class Multiplied(nn.Module):
    """Right: a whole table of each kind inside, and a mask of their dtype."""

    def __init__(self, rows, free):
        super().__init__()
        self.learned = nn.Embedding.from_pretrained(rows.clone(), freeze=False)
        self.kept = nn.Embedding.from_pretrained(rows.clone())
        self.mask = nn.Embedding.from_pretrained(free[:, None].to(rows.dtype))

    def forward(self, ids):
        return torch.where(self.mask(ids) > 0, self.learned(ids), self.kept(ids))


class WholeTable(nn.Module):
    """Right: the table is put together before the look-up."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("kept", rows.clone())
        self.register_buffer("free", free.clone())
        self.learned = nn.Parameter(rows.clone())

    def forward(self, ids):
        return F.embedding(ids, torch.where(self.free[:, None], self.learned, self.kept))


WRONG = {
    "fine_tuning.groups": [
        (grouped(TABLE, HEAD | {"weight_decay": 0.01}), "no table decays by 0.01"),
        (grouped(TABLE, HEAD, kind=optim.AdamW), "shrinks rows"),
        (own_parameters, "stands in two groups"),
        (grouped(TABLE | {"lr": "head"}, HEAD | {"lr": "table"}), "the other's rate"),
        (grouped(TABLE, HEAD, kind=optim.SGD), "optim.Adam is wanted"),
        (grouped(TABLE, HEAD, is_table=nn.Embedding), "EmbeddingBag is a table"),
        (grouped(TABLE, HEAD, frozen=True), "frozen parameter is in a group"),
        (weights_only, "no table is in no group"),
        (table_twice, "stands in two groups"),
        (children_only, "deeper in the model"),
        (by_type, "subclass of nn.Embedding"),
        (thaws, "changed what is frozen"),
    ],
    "fine_tuning.readings": [
        (READ | {"A": "no telling yet"}, "Is 0 in it"),
        (READ | {"A": "within half a point"}, "0.3 to 1.5"),
        (READ | {"B": "tuned is better"}, "luck in common"),
        (READ | {"B": "within half a point"}, "overlap does not make"),
        (READ | {"C": "no telling yet"}, "neither is by much"),
        (READ | {"C": "frozen is better"}, "0 is in it"),
        (READ | {"C": "no"}, "none of the four"),
        (READ | {"C": ...}, "Still to be filled in"),
        (READ | {"A": 3}, "none of the four"),
    ],
    "fine_tuning.partly_frozen": [
        (Masked, "gradient of zero does not stop it"),
        (Plain, "Register them as a buffer"),
        (MaskLeftBehind, "Register `free` as a buffer"),
        (Shared, "share their memory"),
        (SharedBuffer, "share their memory"),
        (NoAxis, "an axis at its end|in its place|gave"),
        (AllFrozen, "Nothing in it can learn"),
        (InOrder, "in its place"),
        (Detached, "did not learn"),
        (WritesIntoTheTable, "writing into it writes into the table"),
        (Difference, "a difference from it"),
        (NeedsAFreeRow, "no row is free"),
        (Swapped, "the other way round"),
        (MaskOfAllRows, "that of these ids|gave"),
        (StillInEval, r"After .eval\(\)"),
    ],
}

RIGHT = {
    "fine_tuning.groups": [a_group_each, added_later],
    "fine_tuning.readings": [
        {name: f" {said.upper()}." for name, said in READ.items()},
        READ | {"E": "nothing"},
    ],
    "fine_tuning.partly_frozen": [Compact, Multiplied, WholeTable, ByMask, Scattered, PutBack],
}
