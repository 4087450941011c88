"""Checks of lesson 01: look-ups, ids, birthdays, padding and max_norm."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, call, close, describe, exercise, number, same


@exercise
def look_up(answer):
    """A function (ids, weight) -> rows, for ids of any shape."""
    weight = torch.randn(5, 8)
    for shape in [(7,), (2, 3), (), (2, 3, 5), (0, 4)]:
        ids = torch.randint(5, shape)
        rows, truth = call(answer, ids, weight), F.embedding(ids, weight)
        if isinstance(rows, torch.Tensor) and rows.shape != truth.shape:
            if close(rows, truth.flatten(end_dim=-2)):
                raise Wrong(f"The rows are right, but ids of shape {shape} should keep their axes.")
            if ids.dim() == 1 and rows.shape == (weight.shape[0], *shape):
                raise Wrong("You took columns of the weight. Rows are counted by axis 0.")
        if not same(rows, truth, f"The answer for ids of shape {shape}"):
            raise Wrong(f"For ids of shape {shape} the shape is right, but the rows are not.")
    return "Ids of any shape, an empty batch included: the same rows as F.embedding."


@exercise
def to_ids(answer):
    """A function raw -> (ids, V): dense ids for arbitrary numbers."""
    for shape in [(30,), (4, 5)]:
        raw = torch.randint(-(10**6), 10**12, (9,))[torch.randint(9, shape)]
        pair = call(answer, raw)
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Wrong(f"Return a pair, ids and V, not {describe(pair)}.")
        ids, V = pair[0], number(pair[1], "V")
        distinct = len(raw.unique())
        if not isinstance(ids, torch.Tensor) or ids.shape != raw.shape:
            raise Wrong(f"ids should be a tensor of shape {shape}, like raw; not {describe(ids)}.")
        if ids.dtype not in (torch.int64, torch.int32):
            raise Wrong(f"ids should be whole numbers (int64), not {ids.dtype}.")
        if ids.min() < 0:
            raise Wrong("An id is negative. Ids run from 0 to V - 1.")
        if ids.max().item() >= V:
            raise Wrong(f"The largest id is {ids.max()}, too large for a table of {V:.0f} rows.")
        pairs = torch.stack([raw.flatten(), ids.flatten()]).unique(dim=1).shape[1]
        if len(ids.unique()) < distinct:
            raise Wrong("Two different customers got the same id, so they would share a row.")
        if pairs > distinct:
            raise Wrong("The same customer got different ids at different places.")
        if V > distinct:
            raise Wrong(f"V is {V:.0f} for {distinct} different customers: rows are wasted.")
    return "Dense ids, one a customer, and a table without a wasted row."


@exercise
def expected_pairs(answer):
    """A function (V, p) -> expected number of equal pairs."""
    for V in [23, *torch.randint(2, 10**6, (4,)).tolist()]:
        p = torch.rand(()).item() / 100
        value, truth = number(call(answer, V, p)), V * (V - 1) / 2 * p
        if abs(value - truth) <= 1e-6 * truth:
            continue
        near = {
            V * p: "That counts the rows equal to one given row. Any two may be equal.",
            (V - 1) * p: "That counts the rows equal to one given row. Any two may be equal.",
            V * (V - 1) * p: "That counts each pair twice: A with B, and B with A.",
            V * V * p: "That counts each pair twice, and each row with itself.",
            V * V / 2 * p: "Nearly: that lets a row be paired with itself.",
            V * (V + 1) / 2 * p: "Nearly: that lets a row be paired with itself.",
        }
        for guess, hint in near.items():
            if abs(value - guess) <= 1e-6 * guess:
                raise Wrong(hint)
        if 0 <= value <= 1:
            raise Wrong("That looks like a probability. Wanted is the expected number of pairs.")
        raise Wrong(f"For V = {V} and p = {p:.6f} you say {value:.6g}. Count the pairs of V rows.")
    return "Pairs grow with the square of V: this is why 23 people are enough."


@exercise
def sentence_vectors(answer):
    """A function (table, ids, pad) -> mean row of the words that are not padding."""
    for pad in [0, 3]:
        table = nn.Embedding(9, 5)
        words = torch.tensor([i for i in range(9) if i != pad])
        ids = words[torch.randint(8, (4, 6))]
        ids[:, 0] = words[0]  # with pad = 3 this is 0: masking id 0 then loses a word
        ids[0, 2:], ids[1, 1:], ids[2, 5:] = pad, pad, pad
        mask = (ids != pad).unsqueeze(-1)
        rows = table(ids).detach()
        truth = (rows * mask).sum(1) / mask.sum(1)
        value = call(answer, table, ids, pad)
        if same(value, truth, "The mean"):
            continue
        if close(value, rows.mean(1)):
            raise Wrong("The padding row is in your mean. It may hold anything; mask it.")
        if close(value, (rows * mask).sum(1) / ids.shape[1]):
            raise Wrong("You divide by the length of the rectangle, not by the number of words.")
        if close(value, (rows * mask).sum(1)):
            raise Wrong("That is the sum of the words' rows. Divide by how many there are.")
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
    for max_norm in [1.0, 2.5]:
        scale = torch.tensor([0.1, 3.0, 1.0, 4.0, 0.2, 5.0, 2.0, 1.0])
        weight = torch.randn(8, 4) * scale.unsqueeze(1)
        ids = torch.tensor([[1, 0, 1], [6, 3, 4]])
        table = nn.Embedding.from_pretrained(weight.clone(), max_norm=max_norm)
        table(ids)
        truth, given = table.weight, weight.clone()
        value = call(answer, given, ids, max_norm, copy=False)
        if same(value, truth, "The weight"):
            if not torch.equal(given, weight):
                raise Wrong("The numbers are right, but you changed the weight you were given.")
            continue
        lengths = weight.norm(dim=1, keepdim=True)
        everywhere = torch.where(lengths > max_norm, weight * max_norm / lengths, weight)
        touched = weight.clone()
        touched[ids.unique()] = (weight * max_norm / lengths)[ids.unique()]
        if close(value, everywhere):
            raise Wrong("You shortened every long row. Only rows that were looked up are written.")
        if close(value, touched):
            raise Wrong("Rows 0 and 4 are shorter than max_norm. They should not be stretched.")
        if close(value, weight):
            raise Wrong("That is the weight before. The look-up writes into it.")
        if close(value, weight.clamp(-max_norm, max_norm)):
            raise Wrong("You clipped single numbers. max_norm limits the length of a whole row.")
        raise Wrong("Not the table that PyTorch leaves. Which rows change, and by what factor?")
    return "Looked-up rows that are too long shrink to max_norm; the rest is as it was."
