"""Lesson 09: wrong answers that readers give, and a part of the hint that each should get."""

import torch


def padding_counted(mask):
    return torch.arange(mask.shape[1]).expand(mask.shape) * mask


def from_one(mask):
    return mask.long().cumsum(1) * mask


def negative(mask):
    return mask.long().cumsum(1) - 1


def padding_goes_on(mask):
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def down_the_batch(mask):
    return (mask.long().cumsum(0) - 1) * mask


def through_the_batch(mask):
    return (mask.long().flatten().cumsum(0) - 1).reshape(mask.shape) * mask


def from_the_end(mask):
    return (mask.long().flip(1).cumsum(1).flip(1) - 1) * mask


def as_floats(mask):
    return (mask.float().cumsum(1) - 1) * mask


def table(
    T, D, exponent=lambda i, D: i / D, first=0, unit=1.0, order="turns", multiply=False, swap=False
):
    """The sinusoidal table with one of its usual mistakes."""
    scale = 10_000 ** exponent(torch.arange(0, D, 2), D)
    places = unit * (torch.arange(T)[:, None] + first)
    angles = places * scale if multiply else places / scale
    pair = [angles.cos(), angles.sin()] if swap else [angles.sin(), angles.cos()]
    return torch.cat(pair, 1) if order == "halves" else torch.stack(pair, 2).flatten(1)


def each_column_its_own(T, D):
    angles = torch.arange(T)[:, None] / 10_000 ** (torch.arange(D) / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


def turned(x, places, sign=1, same=False, kind="turn"):
    """Rotary positions with one of their usual mistakes."""
    D = x.shape[-1]
    frequency = 1 / 10_000 ** (torch.arange(0, D, 2) / D)
    angles = places[:, None] * (torch.ones_like(frequency) if same else frequency)
    c, s = angles.cos(), sign * angles.sin()
    if kind == "halves":
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return torch.cat([a * c - b * s, a * s + b * c], -1)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = {
        "turn": (a * c - b * s, a * s + b * c),
        "added": (a + s, b + c),
        "cosines": (a * c, b * c),
        "no minus": (a * c + b * s, a * s + b * c),
        "overwritten": (a * c - b * s, (a * c - b * s) * s + b * c),
    }
    if kind == "moved":
        return torch.cat(pairs["turn"], -1)
    return torch.stack(pairs[kind], -1).flatten(-2)


def bins(x, knots, kind="right"):
    """Soft bins with one of their usual mistakes."""
    right = torch.searchsorted(knots, x.clamp(knots[0], knots[-1])).clamp(1, len(knots) - 1)
    left = right - 1
    share = (x.clamp(knots[0], knots[-1]) - knots[left]) / (knots[right] - knots[left])
    if kind == "line goes on":
        share = (x - knots[left]) / (knots[right] - knots[left])
    elif kind == "undivided":
        share = x.clamp(knots[0], knots[-1]) - knots[left]
        return torch.stack([left, right], 1), torch.stack([knots[right] - x, share], 1)
    elif kind == "hard":
        share = torch.zeros_like(share)
    elif kind == "half":
        share = torch.full_like(share, 0.5)
    elif kind == "exchanged":
        share = 1 - share
    elif kind == "beyond":
        left = torch.searchsorted(knots, x, right=True) - 1
        right = left + 1
    elif kind == "even":
        at = (x.clamp(knots[0], knots[-1]) - knots[0]) / (knots[-1] - knots[0]) * (len(knots) - 1)
        left = at.long().clamp(max=len(knots) - 2)
        right, share = left + 1, at - left
    return torch.stack([left, right], 1), torch.stack([1 - share, share], 1)


def one_row(x, knots):
    return torch.bucketize(x, knots), torch.ones_like(x)


def pair_by_column(T, D):
    column = torch.arange(D)
    angles = torch.arange(T)[:, None] / 10_000 ** (2 * column / D)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos())


WRONG = {
    "positions.place_ids": [
        (padding_counted, "padding is counted too"),
        (from_one, "first real token gets 0, not 1"),
        (negative, "negative"),
        (padding_goes_on, "Padding should get 0"),
        (down_the_batch, "down the batch"),
        (through_the_batch, "goes on from one sequence to the next|Each starts at 0"),
        (from_the_end, "from the end"),
        (as_floats, "no float ids"),
        (lambda mask: mask, "should be of int64"),
    ],
    "positions.sinusoids": [
        (lambda T, D: table(T, D, order="halves"), "take turns"),
        (pair_by_column, "number of the pair"),
        (lambda T, D: table(T, D, swap=True), "exchanged"),
        (lambda T, D: table(T, D, first=1), "first place is 0"),
        (lambda T, D: table(T, D, exponent=lambda i, D: i / 2 / D), "2 i / D for pair i"),
        (lambda T, D: table(T, D, exponent=lambda i, D: 2 * i / D), "2 i / D for pair i"),
        (lambda T, D: table(T, D, exponent=lambda i, D: i), "D is missing"),
        (lambda T, D: table(T, D, unit=torch.pi / 180), "radians"),
        (lambda T, D: table(T, D, multiply=True), "not multiplied"),
        (each_column_its_own, "share one angle"),
        (lambda T, D: table(T, D).T, "on its side"),
        (lambda T, D: table(T, D).long(), "should be of float32"),
        (lambda T, D: table(T, D)[None], "should have shape"),
        (lambda T, D: table(T, D) * 0.5, "is wanted"),
    ],
    "positions.rotate": [
        (lambda x, places: turned(x, places, sign=-1), "other way"),
        (lambda x, places: turned(x, torch.arange(len(places))), "places given"),
        (lambda x, places: turned(x, places, kind="halves"), "not the two halves"),
        (lambda x, places: turned(x, places, kind="moved"), "stand elsewhere"),
        (lambda x, places: turned(x, places, kind="added"), "multiplies"),
        (lambda x, places: turned(x, places, same=True), "Each has its own"),
        (lambda x, places: turned(x, places, kind="cosines"), "Only cosines"),
        (lambda x, places: turned(x, places, kind="no minus"), "sign is missing"),
        (lambda x, places: turned(x, places, kind="overwritten"), "after the first has changed"),
        (lambda x, places: turned(x, 2 * places), "another angle"),
        (lambda x, places: 2 * turned(x, places), "keeps the length"),
    ],
    "positions.soft_bins": [
        (lambda x, knots: bins(x, knots, "exchanged"), "exchanged"),
        (lambda x, knots: bins(x, knots, "hard"), "hard bin"),
        (lambda x, knots: bins(x, knots, "half"), "Half and half"),
        (lambda x, knots: bins(x, knots, "undivided"), "add up to 1"),
        (lambda x, knots: bins(x, knots, "line goes on"), "the line goes on"),
        (lambda x, knots: bins(x, knots, "beyond"), "no knot|beyond the last knot"),
        (lambda x, knots: bins(x, knots, "even"), "even distances"),
        (one_row, "should have shape"),
        (lambda x, knots: bins(x, knots)[0], "A pair is wanted"),
    ],
}
