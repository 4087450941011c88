"""Lesson 08: wrong answers that readers give, and a part of the hint that each should get."""

import torch
import torch.nn.functional as F
from torch import nn, optim


def mean_over_all(W, b, Z, y):
    return F.cross_entropy((Z @ W + b[:, None]).flatten(0, 1), y.flatten())


def sum_over_all(W, b, Z, y):
    return F.cross_entropy((Z @ W + b[:, None]).flatten(0, 1), y.flatten(), reduction="sum")


def bias_broadcast(W, b, Z, y):
    return len(W) * F.cross_entropy((Z @ W + b).flatten(0, 1), y.flatten())


def bias_on_the_wrong_side(W, b, Z, y):
    logits = Z @ W
    logits = logits + (b if len(W) == Z.shape[1] else b[:, None])
    return len(W) * F.cross_entropy(logits.flatten(0, 1), y.flatten())


def classes_last(W, b, Z, y):
    return len(W) * F.cross_entropy(torch.baddbmm(b[:, None], Z, W), y)


def without_bias(W, b, Z, y):
    return len(W) * F.cross_entropy((Z @ W).flatten(0, 1), y.flatten())


def one_by_one(W, b, Z, y):
    return torch.stack(
        [F.cross_entropy(Z[s] @ W[s] + b[s], y[s], reduction="none") for s in range(len(W))]
    ).mean(dim=1)


def grouped(tables, rest, kind=optim.AdamW, is_table=(nn.Embedding, nn.EmbeddingBag), frozen=False):
    """An answer to exercise 2 with these options for the two groups."""

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
    return optim.AdamW(
        [
            {"params": [m.weight for m in tables], "lr": table_rate, "weight_decay": 0},
            {"params": [m.weight for m in linear], "lr": head_rate},
        ]
    )


def table_twice(model, table_rate, head_rate):
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    return optim.AdamW(
        [
            {"params": [m.weight for m in tables], "lr": table_rate, "weight_decay": 0},
            {"params": model.parameters(), "lr": head_rate},
        ]
    )


NO_DECAY, HEAD = {"lr": "table", "weight_decay": 0}, {"lr": "head", "weight_decay": 0.01}


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


class Difference(nn.Module):
    """A learned difference from the given rows: weight decay pulls to them, not to zero."""

    def __init__(self, rows, free):
        super().__init__()
        self.register_buffer("rows", rows.clone())
        self.register_buffer("free", free[:, None].to(rows.dtype))
        self.difference = nn.Parameter(torch.zeros_like(rows))

    def forward(self, ids):
        return self.rows[ids] + self.free[ids] * self.difference[ids]


WRONG = {
    "fine_tuning.together": [
        (mean_over_all, "S times too small"),
        (sum_over_all, "N times too large"),
        (bias_broadcast, "does not line up"),
        (bias_on_the_wrong_side, "not where N is S"),
        (classes_last, "classes in dimension 1"),
        (without_bias, "Both belong in the logits"),
        (one_by_one, "One loss is wanted"),
    ],
    "fine_tuning.groups": [
        (grouped({"lr": "table"}, HEAD), "AdamW decays by 0.01"),
        (grouped(NO_DECAY, {"lr": "head", "weight_decay": 0}), "no table decays by 0"),
        (grouped(NO_DECAY | {"lr": "head"}, HEAD | {"lr": "table"}), "the other's rate"),
        (grouped(NO_DECAY, HEAD, kind=optim.Adam), "AdamW is wanted"),
        (grouped(NO_DECAY, HEAD, is_table=nn.Embedding), "EmbeddingBag is a table"),
        (grouped(NO_DECAY, HEAD, frozen=True), "frozen parameter is in a group"),
        (weights_only, "no table is in no group"),
        (table_twice, "stands in two groups"),
    ],
    "fine_tuning.paired": [
        (lambda a, b, t: ((b - a).mean(), t * (a - b).std() / len(a) ** 0.5), "b - a"),
        (lambda a, b, t: ((a - b).mean(), t * (a - b).std()), "root of the number of seeds"),
        (lambda a, b, t: ((a - b).mean(), (a - b).std() / len(a) ** 0.5), "t is missing"),
        (lambda a, b, t: ((a - b).mean(), 1.96 * (a - b).std() / len(a) ** 0.5), "1.96"),
        (
            lambda a, b, t: ((a - b).mean(), t * (a - b).std(correction=0) / len(a) ** 0.5),
            "S - 1",
        ),
        (
            lambda a, b, t: ((a - b).mean(), t * ((a.var() + b.var()) / len(a)) ** 0.5),
            "Subtract first",
        ),
        (lambda a, b, t: ((a - b).mean(), 2 * t * (a - b).std() / len(a) ** 0.5), "whole width"),
        (
            lambda a, b, t: tuple(
                (a - b).mean() + sign * t * (a - b).std() / len(a) ** 0.5 for sign in (-1, 1)
            ),
            "ends of the interval",
        ),
        (lambda a, b, t: (a - b).mean(), "A pair is wanted"),
        (lambda a, b, t: ((a - b).mean().abs(), t * (a - b).std() / len(a) ** 0.5), "b - a"),
    ],
    "fine_tuning.partly_frozen": [
        (Masked, "gradient of zero does not stop it"),
        (Plain, "Register them as a buffer"),
        (Shared, "share their memory"),
        (SharedBuffer, "share their memory"),
        (AllFrozen, "Nothing in it can learn"),
        (InOrder, "in its place"),
        (Detached, "did not learn"),
        (WritesIntoTheTable, "writing into it writes into the table"),
        (Difference, "a difference from it"),
    ],
}
