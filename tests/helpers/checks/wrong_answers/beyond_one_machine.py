"""Lesson 11: wrong answers that readers give, and a part of the hint that each should get."""

import math

import torch
import torch.nn.functional as F
from torch import nn

KEPT = {"SGD": 0, "Adagrad": 1, "Adam": 2}


def planned(weight=1, state=1, gradient=1, unit=1e9, kept=KEPT, rows=None, item=None):
    """An answer to exercise 1: 1 for a part as it should be, 0 without it, "N" or "V" for cut or
    whole where it should be the other.
    """

    def plan(V, D, dtype, optimizer, N):
        shard = rows(V, N) if rows else math.ceil(V / N)
        many = {1: shard, 0: 0, "V": V}
        of_gradient = {1: V, 0: 0, "N": shard}[gradient]
        numbers = many[weight] + kept[optimizer] * many[state] + of_gradient
        return numbers * D * (item or dtype.itemsize) / unit

    return plan


def rounded_plan(V, D, dtype, optimizer, N):
    return round(planned()(V, D, dtype, optimizer, N), 2)


def quotient_remainder(
    rows=lambda V, k: (k, math.ceil(V / k)), combine=None, places=None, D_of=None
):
    """An answer to exercise 3 with another number of rows, another sum, other places."""

    class Answer(nn.Module):
        def __init__(self, V, D, k):
            super().__init__()
            one, other = rows(V, k)
            self.k = k
            self.one, self.other = nn.Embedding(one, D), nn.Embedding(other, D_of or D)

        def forward(self, ids):
            one, other = (places or (lambda ids, k: (ids % k, ids // k)))(ids, self.k)
            return (combine or torch.mul)(self.one(one), self.other(other))

    return Answer


class OneTable(nn.Module):
    def __init__(self, V, D, k):
        super().__init__()
        self.k, self.one = k, nn.Embedding(max(k, math.ceil(V / k)), D)

    def forward(self, ids):
        return self.one(ids % self.k) * self.one(ids // self.k)


class NotAModule:
    def __init__(self, V, D, k):
        self.one, self.other = nn.Embedding(k, D), nn.Embedding(math.ceil(V / k), D)


def half_detached(one, other):
    return one.detach() * other


def all_divided(V, D, dtype, optimizer, N):
    return V * D * dtype.itemsize * (2 + KEPT[optimizer]) / N / 1e9


def detached(one, other):
    return (one * other).detach()


def encoded(
    levels=lambda bits: 2**bits - 1, dim=1, rounding=torch.round, dtype=torch.uint8, safe=True
):
    """An answer to exercise 4 with other levels, another step, another rounding."""

    def encode(rows, bits):
        low = rows.amin(dim=1, keepdim=True)
        high = rows.amax(dim=1, keepdim=True)
        step = (high - low) / levels(bits)
        if dim is None:
            step = ((rows.max() - rows.min()) / levels(bits)).expand(len(rows), 1)
        divisor = torch.where(step > 0, step, 1) if safe else step
        return rounding((rows - low) / divisor).to(dtype), step, low

    return encode


def scalar_step(rows, bits):
    low, step = rows.amin(dim=1, keepdim=True), (rows.max() - rows.min()) / (2**bits - 1)
    return ((rows - low) / step).round().to(torch.uint8), step, low


def flat_lows(rows, bits):
    codes, step, low = encoded()(rows, bits)
    return codes, step.squeeze(1), low.squeeze(1)


def one_low(rows, bits):
    low = rows.min().expand(len(rows), 1)
    step = (rows.amax(dim=1, keepdim=True) - low) / (2**bits - 1)
    return ((rows - low) / step).round().to(torch.uint8), step, low


def overflowing(rows, bits):
    codes, step, low = encoded(levels=lambda bits: 2**bits)(rows, bits)
    return codes, step, low


def decoded(rows, bits):
    codes, step, low = encoded()(rows, bits)
    return low + step * codes


def constant_one(rows, bits):
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = torch.where(high > low, (high - low) / (2**bits - 1), 1)
    return ((rows - low) / step).round().to(torch.uint8) + (high == low).to(torch.uint8), step, low


def clamped(shard, first, ids):
    return F.embedding((ids - first).clamp(0, len(shard) - 1), shard)


def modulo(shard, first, ids):
    return F.embedding((ids - first) % len(shard), shard)


def unmasked(shard, first, ids):
    return F.embedding(ids - first, shard)


def without_first(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    return F.embedding(ids % len(shard), shard).where(mine.unsqueeze(-1), 0).roll(1, -1)


def inclusive(shard, first, ids):
    mine = (ids >= first) & (ids <= first + len(shard))
    place = (ids - first).clamp(0, len(shard) - 1)
    return F.embedding(place, shard).where(mine.unsqueeze(-1), 0)


def only_mine(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    return F.embedding(ids[mine] - first, shard)


def flat_mask(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    return F.embedding((ids - first).where(mine, 0), shard) * mine


def without_gradient(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    return F.embedding((ids - first).where(mine, 0), shard.detach()).where(mine.unsqueeze(-1), 0)


def zeroed_in_value_only(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    rows = F.embedding((ids - first).where(mine, 0), shard)
    return rows - rows.detach().where(~mine.unsqueeze(-1), 0)


def by_one_hot(shard, first, ids):
    mine = (ids >= first) & (ids < first + len(shard))
    place = (ids - first).where(mine, len(shard))
    return F.one_hot(place, len(shard) + 1)[..., :-1].float() @ shard


def pieces(one, other):
    return torch.cat([one, other], dim=-1)


WRONG = {
    "beyond_one_machine.plan": [
        (planned(unit=1), "These are bytes"),
        (planned(unit=2**30), "These are GiB"),
        (planned(state=0), "state is missing"),
        (planned(gradient=0), "gradient is missing"),
        (planned(gradient="N"), "does not divide the gradient"),
        (planned(state="V"), "state is divided"),
        (planned(weight="V", state="V"), "divide by N"),
        (planned(rows=lambda V, N: V // N), "fullest device"),
        (planned(rows=lambda V, N: V / N), "row is not cut"),
        (all_divided, "Every part is divided"),
        (planned(item=4), "not 4"),
        (planned(item=1), "These are numbers"),
        (planned(kept={"SGD": 0, "Adagrad": 1, "Adam": 1}), "Adam two"),
        (planned(kept={"SGD": 0, "Adagrad": 2, "Adam": 2}), "Adagrad keeps one"),
        (planned(kept={"SGD": 1, "Adagrad": 1, "Adam": 2}), "without rounding"),
        (rounded_plan, "without rounding"),
        (lambda V, D, dtype, optimizer, N: "64 GB", "a number"),
    ],
    "beyond_one_machine.distinct_rows": [
        (min, "stay empty"),
        (lambda n, m: max(0, n - m), "are expected"),
        (lambda n, m: n, "fewer rows than ids"),
        (lambda n, m: m, "stay empty"),
        (lambda n, m: m * (1 - 1 / m) ** n, "empty rows"),
        (lambda n, m: 1 - (1 - 1 / m) ** n, "share of the rows"),
        (lambda n, m: m * (1 - math.exp(-n / m)), "Nearly"),
        (lambda n, m: m * (1 - (1 - 1 / m) ** (n - 1)), "none of them"),
        (lambda n, m: n * (1 - (1 - 1 / m) ** (n - 1)), "ids that share"),
        (lambda n, m: n * (1 - 1 / m) ** (n - 1), "alone in their row"),
        (lambda n, m: n * (n - 1) / (2 * m), "pairs of ids"),
        (lambda n, m: n - n * (n - 1) / (2 * m), "no lost rows"),
    ],
    "beyond_one_machine.quotient_remainder": [
        (
            quotient_remainder(places=lambda ids, k: (ids % k, (ids / k).long())),
            "run out of digits",
        ),
        (quotient_remainder(rows=lambda V, k: (k, V // k)), "too few"),
        (quotient_remainder(rows=lambda V, k: (k, V // k + 1)), "one too many"),
        (quotient_remainder(rows=lambda V, k: (V, V)), "remainders are possible"),
        (quotient_remainder(combine=torch.add), "sum of the two rows"),
        (quotient_remainder(combine=pieces), "one behind the other"),
        (quotient_remainder(combine=detached), "No gradient"),
        (quotient_remainder(combine=half_detached), "one of the tables only"),
        (quotient_remainder(D_of=1), "columns"),
        (quotient_remainder(places=lambda ids, k: (ids % k, ids % k)), "row id % k of one"),
        (quotient_remainder(places=lambda ids, k: (ids // k, ids % k)), "is not there"),
        (quotient_remainder(places=lambda ids, k: (ids % k, ids / k)), "whole"),
        (OneTable, "Two nn.Embedding"),
        (NotAModule, "nn.Module"),
    ],
    "beyond_one_machine.encode": [
        (encoded(dim=None), "whole table's"),
        (scalar_step, "not one for the table"),
        (flat_lows, "keepdim"),
        (one_low, "own smallest"),
        (overflowing, "steps between them"),
        (encoded(levels=lambda bits: 255), "step of 8 bits"),
        (encoded(rounding=torch.floor), "cut off"),
        (encoded(rounding=lambda codes: codes), "cut off"),
        (encoded(dtype=torch.int64), "torch.uint8"),
        (encoded(safe=False), "0 / 0"),
        (decoded, "Three tensors"),
        (constant_one, "come back as it was"),
    ],
    "beyond_one_machine.shard_rows": [
        (clamped, "not zero"),
        (modulo, "not zero"),
        (unmasked, "another rank raised"),
        (without_first, "do not get their rows"),
        (inclusive, "not zero"),
        (only_mine, "of zeros"),
        (flat_mask, "one more dimension"),
        (without_gradient, "No gradient"),
        (zeroed_in_value_only, "gradients do not"),
        (by_one_hot, "Look the rows up"),
    ],
}
