"""Checks of lesson 01: look-ups, ids, birthdays, padding and max_norm."""

import math
import numbers

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, call, close, describe, exercise, number, same


@exercise
def look_up(answer):
    """A function (ids, weight) -> rows, for ids of any shape."""
    weight = torch.randn(5, 8)
    empty = "Right until a batch is empty: nobody can guess -1 from no numbers. Name the size."
    for shape in [(7,), (2, 3), (), (1,), (1, 3), (2, 3, 5), (2, 2, 2, 2), (0, 4)]:
        ids = torch.randint(5, shape)
        rows = call(answer, ids, weight, hints={"of 0 elements": empty})
        truth = F.embedding(ids, weight)
        if isinstance(rows, torch.Tensor) and rows.shape != truth.shape:
            if rows.numel() == truth.numel() and close(rows.flatten(), truth.flatten()):
                raise Wrong(f"The rows are right, but ids of shape {shape} should keep their axes.")
            if ids.dim() == 1 and rows.shape == (weight.shape[0], *shape):
                raise Wrong("You took columns of the weight. Rows are counted by axis 0.")
        same(rows, truth, f"The answer for ids of shape {shape}")
        if not torch.equal(rows, truth):
            raise Wrong(f"For ids of shape {shape} the shape is right, but the rows are not.")
    return "Ids of any shape, an empty batch included: the same rows as F.embedding."


@exercise
def to_ids(answer):
    """A function raw -> (ids, V): dense ids for arbitrary numbers."""
    n = int(torch.randint(100, 10**6, ()))
    # numbers that float32, float64, int32, abs or a remainder would take for the same
    some = torch.tensor([n, -n, n + 2**32, 2**53, 2**53 + 1, n + 1, 0, 10 * n, 7])
    for shape in [(30,), (4, 5), (2, 3, 2), ()]:
        raw = some[torch.randint(9, shape)]
        if len(shape) == 1:
            raw = torch.cat([some, raw])
        shape = tuple(raw.shape)
        pair = call(answer, raw)
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Wrong(f"Return a pair, ids and V, not {describe(pair)}.")
        ids, V = pair[0], number(pair[1], "V")
        if not isinstance(V, numbers.Integral):
            raise Wrong(f"V should be a whole number, not {describe(V)}.")
        distinct = len(raw.unique())
        if not isinstance(ids, torch.Tensor) or ids.shape != raw.shape:
            raise Wrong(f"ids should be a tensor of shape {shape}, like raw; not {describe(ids)}.")
        if ids.dtype not in (torch.int64, torch.int32):
            raise Wrong(f"ids should be whole numbers (int64), not {ids.dtype}.")
        if ids.min() < 0:
            raise Wrong("An id is negative. Raw numbers are no ids: those run from 0 to V - 1.")
        pairs = torch.stack([raw.flatten(), ids.flatten()]).unique(dim=1).shape[1]
        if pairs > distinct:
            raise Wrong("The same customer got different ids at different places.")
        if len(ids.unique()) < distinct:
            raise Wrong("Two different customers got the same id, so they would share a row.")
        if ids.max().item() >= V:
            raise Wrong(f"The largest id is {ids.max()}, too large for a table of {V:.0f} rows.")
        if V > distinct:
            raise Wrong(f"V is {V:.0f} for {distinct} different customers: rows are wasted.")
    return "Dense ids, one a customer, and a table without a wasted row."


@exercise
def smallest_dimension(answer):
    """A function (V, p) -> smallest D with fewer than one expected pair of equal rows."""
    for V, p in [(300, 0.1), (10**6, 0.5), (50_000, 1 / 1117), (5, 0.1), (3, 0.9), (1, 0.5)]:
        value = number(call(answer, V, p), "The dimension")
        truth = _first(lambda D, V=V, p=p: V * (V - 1) / 2 * p**D)
        if value == truth:
            continue
        if not math.isfinite(value) or value != int(value) or value < 1:
            raise Wrong(f"For V = {V} you say D = {value:.3g}. D is a whole number from 1 on.")
        expected = V * (V - 1) / 2 * p**value
        if expected == 1:
            raise Wrong(f"For V = {V} you say D = {value}: exactly one pair. Fewer are wanted.")
        if value == _first(lambda D, V=V, p=p: V * p**D):
            raise Wrong("You counted rows equal to one given row. Any two of V rows may be equal.")
        if value in (_first(lambda D, V=V, p=p, n=n: V * n * p**D) for n in (V, V - 1)):
            raise Wrong(f"For V = {V} that is too many: did you count each pair twice?")
        if value < truth:
            raise Wrong(f"For V = {V} you say D = {value:.0f}; {expected:.3g} pairs are expected.")
        raise Wrong(f"For V = {V} you say D = {value:.0f}, and a smaller D is enough.")
    return "Pairs grow with the square of V, and every dimension multiplies them by p."


def _first(expected) -> int:
    """The smallest D from 1 on with expected(D) < 1."""
    D = 1
    while expected(D) >= 1:
        D += 1
    return D


@exercise
def sentence_vectors(answer):
    """A function (table, ids, pad) -> mean row of the words that are not padding."""
    hints = {
        "leaf Variable": "You wrote into the table. Mask what comes out of it instead.",
        "must match the size": "The mask needs a last axis for the D numbers, above and below the "
        "line: unsqueeze(-1), or keepdim=True.",
    }
    for pad in [0, 3]:
        table = nn.Embedding(9, 5)
        words = torch.tensor([i for i in range(9) if i != pad])
        ids = words[torch.randint(8, (4, 6))]
        ids[:, 0] = words[0]  # with pad = 3 this is 0: masking id 0 then loses a word
        ids[0, 2:], ids[1, 1:], ids[2, 5:] = pad, pad, pad
        mask = (ids != pad).unsqueeze(-1)
        rows = table(ids).detach()
        truth = (rows * mask).sum(1) / mask.sum(1)
        before = table.weight.detach().clone()
        value = call(answer, table, ids, pad, hints=hints)
        if not torch.equal(table.weight, before):
            raise Wrong("You wrote into the table. Mask what comes out of it instead.")
        if same(value, truth, "The mean"):
            continue
        if close(value, rows.mean(1)):
            raise Wrong("The padding row is in your mean. It may hold anything; mask it.")
        if close(value, (rows * mask).sum(1) / ids.shape[1]):
            raise Wrong("You divide by the length of the rectangle, not by the number of words.")
        if close(value, (rows * mask).sum(1)):
            raise Wrong("That is the sum of the words' rows. Divide by how many there are.")
        if close(value, (rows * mask).sum(1) / mask.sum()):
            raise Wrong(
                "You divide by the words of the whole batch. Each sentence has its own number: sum "
                "over dim=1."
            )
        if close(value, rows.sum(1) / mask.sum(1)):
            raise Wrong("You divide by the right number, but the sum holds the padding row too.")
        not_zero = (ids != 0).unsqueeze(-1)
        if pad != 0 and close(value, (rows * not_zero).sum(1) / not_zero.sum(1)):
            raise Wrong("You masked id 0. Here padding is another id: use the argument pad.")
        raise Wrong("The shape is right, but these are not the means of the words' rows.")
    return "More padding, the same vector, whatever the padding row holds."


@exercise
def after_look_up(answer):
    """A function (weight, ids, max_norm) -> the weight after the look-up."""
    for max_norm in [0.5, 2.5]:
        lengths = torch.tensor([[0.2], [3.0], [1.5], [4.0], [0.4], [5.0], [2.0], [0.0]])
        directions = F.normalize(torch.randn(8, 4)) * (lengths > 0)
        weight, ids = directions * lengths, torch.tensor([[1, 0, 1, 7], [6, 3, 4, 7]])
        table = nn.Embedding.from_pretrained(weight.clone(), max_norm=max_norm)
        table(ids)
        given = weight.clone()
        value = call(answer, given, ids, max_norm, copy=False)
        if same(value, table.weight, "The weight"):
            if not torch.equal(given, weight):
                raise Wrong("The numbers are right, but you changed the weight you were given.")
            continue
        looked = torch.zeros(8, 1, dtype=torch.bool).index_fill_(0, ids.flatten(), True)
        long = lengths > max_norm
        if value.isnan().any():
            raise Wrong("A row of zeros became NaN: its length is 0, and you divided by it.")
        if close(value, torch.where(long, directions * max_norm, weight)):
            raise Wrong("You shortened every long row. Only rows that were looked up are written.")
        if close(value, torch.where(looked, directions * max_norm, weight)):
            raise Wrong("Rows 0 and 4 are shorter than max_norm. They should not be stretched.")
        if close(value, torch.where(looked & long, directions, weight)):
            raise Wrong("You shortened the right rows, but to length 1 and not to max_norm.")
        if close(value, torch.where(~looked & long, directions * max_norm, weight)):
            raise Wrong("You shortened the rows that nobody looked at. It is the others.")
        if close(value, weight):
            raise Wrong("That is the weight before. The look-up writes into it.")
        clipped = weight.clamp(-max_norm, max_norm)
        if close(value, clipped) or close(value, torch.where(looked, clipped, weight)):
            raise Wrong("You clipped single numbers. max_norm limits the length of a whole row.")
        raise Wrong("Not the table that PyTorch leaves. Which rows change, and by what factor?")
    return "Looked-up rows that are too long shrink to max_norm; the rest is as it was."
