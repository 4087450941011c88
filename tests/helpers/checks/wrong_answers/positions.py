"""Lesson 09: wrong answers that readers give, and a part of the hint that each should get."""

import math

import numpy as np
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


def turned(x, places, sign=1, same=False, kind="turn", half=1):
    """Rotary positions with one of their usual mistakes."""
    D = x.shape[-1]
    frequency = 1 / 10_000 ** (half * torch.arange(0, D, 2) / D)
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
    if kind == "once":
        half = (a * c - b * s).detach(), a * s + b * c
        return torch.stack(half, -1).flatten(-2).to(x.dtype)
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
    elif kind == "no floor":
        right = torch.searchsorted(knots, x.clamp(knots[0], knots[-1]))
        left = (right - 1).clamp(min=0)
        share = (x.clamp(knots[0], knots[-1]) - knots[left]) / (knots[right] - knots[left])
    elif kind == "other end":
        share = torch.where((x < knots[0]) | (x > knots[-1]), 1 - share, share)
    elif kind == "half outside":
        share = torch.where((x < knots[0]) | (x > knots[-1]), 0.5, share)
    elif kind == "zero outside":
        inside = ((x >= knots[0]) & (x <= knots[-1])).to(x.dtype)
        return torch.stack([left, right], 1), torch.stack([1 - share, share], 1) * inside[:, None]
    elif kind == "other at a knot":
        share = torch.where(torch.isin(x, knots[1:-1]), 1 - share, share)
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


def between_counted(mask):
    first = mask.long().argmax(dim=1, keepdim=True)
    return (torch.arange(mask.shape[1]) - first).clamp(min=0) * mask


def eight_bits(mask):
    count = mask.to(torch.int8).cumsum(1, dtype=torch.int8)
    return ((count - 1) * mask.to(torch.int8)).long().abs()


def one_shape(mask):
    return ((mask.long().cumsum(1) - 1) * mask)[:, :2]


def places_by_loop(mask):
    out = torch.zeros(mask.shape, dtype=torch.int64)
    for row in range(mask.shape[0]):
        place = 0
        for column in range(mask.shape[1]):
            if mask[row, column]:
                out[row, column] = place
                place += 1
    return out


def places_by_where(mask):
    return torch.where(mask.bool(), torch.cumsum(mask, 1) - 1, 0)


def places_by_product(mask):
    real = mask.double()
    return ((real @ torch.ones(mask.shape[1], mask.shape[1]).double().triu() - 1) * real).long()


def waves_by_loop(T, D):
    out = torch.zeros(T, D)
    for p in range(T):
        for i in range(D // 2):
            angle = p / 10_000 ** (2 * i / D)
            out[p, 2 * i], out[p, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return out


def waves_by_exp(T, D):
    out = torch.empty(T, D)
    rate = torch.exp(torch.arange(0, D, 2) * (-math.log(10_000.0) / D))
    out[:, 0::2] = torch.sin(torch.arange(T).unsqueeze(1) * rate)
    out[:, 1::2] = torch.cos(torch.arange(T).unsqueeze(1) * rate)
    return out


def waves_by_numpy(T, D):
    angles = np.arange(T)[:, None] / 10_000 ** (2 * (np.arange(D) // 2) / D)
    even = np.arange(D) % 2 == 0
    return torch.tensor(np.where(even, np.sin(angles), np.cos(angles)), dtype=torch.float32)


def small_places(T, D, dtype=torch.int8):
    places = torch.arange(T).to(dtype).float()
    angles = places[:, None] / 10_000 ** (torch.arange(0, D, 2) / D)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def turned_complex(x, places):
    D = x.shape[-1]
    angles = places.double()[:, None] / 10_000 ** (torch.arange(0, D, 2).double() / D)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    out = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles))
    return out.flatten(-2).to(x.dtype)


def turned_by_matrix(x, places):
    D = x.shape[-1]
    turn = torch.zeros(len(places), D, D)
    for i in range(D // 2):
        angle = places.float() / 10_000 ** (2 * i / D)
        turn[:, 2 * i, 2 * i] = turn[:, 2 * i + 1, 2 * i + 1] = angle.cos()
        turn[:, 2 * i, 2 * i + 1] = angle.sin()
        turn[:, 2 * i + 1, 2 * i] = -angle.sin()
    out = torch.einsum("...td,tde->...te", x.float(), turn)
    return out.to(x.dtype) if x.dtype != torch.float64 else turned_complex(x, places)


def soft_by_distance(x, knots):
    x = torch.minimum(torch.maximum(x, knots[0]), knots[-1])
    left = ((x[:, None] >= knots).sum(1) - 1).clamp(0, len(knots) - 2)
    width = knots.diff()[left]
    near = torch.stack([knots[left + 1] - x, x - knots[left]], 1) / width[:, None]
    return [torch.stack([left, left + 1], 1).int(), near]


def soft_by_interp(x, knots):
    at = np.interp(x.numpy(), knots.numpy(), np.arange(len(knots)))
    left = np.minimum(at.astype(np.int64), len(knots) - 2)
    share = torch.tensor(at - left, dtype=x.dtype)
    ids = torch.tensor(np.stack([left + 1, left], 1))
    return ids, torch.stack([share, 1 - share], 1)


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
        (lambda mask: mask.bool(), "should be of int64"),
        (between_counted, "Padding between two words"),
        (eight_bits, "eight bits|int8|Right for short"),
        (one_shape, "should have shape"),
        (lambda mask: places_by_where(mask).int(), "int64, not int32"),
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
        (lambda T, D: table(T, D).double(), "should be of float32"),
        (small_places, "too few bits"),
        (lambda T, D: small_places(T, D, torch.uint8), "too few bits"),
        (lambda T, D: small_places(T, D, torch.bfloat16), "too few bits"),
        (lambda T, D: torch.nn.Parameter(table(T, D, lambda i, D: i / D)), "asks for a gradient"),
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
        (lambda x, places: turned(x, places, half=0.5), "not i / D"),
        (lambda x, places: turned(x, places, half=2), "not 4 i / D"),
        (lambda x, places: turned(x, places.to(x.dtype)).to(x.dtype), "at places from 257"),
        (lambda x, places: turned(x, places.to(torch.uint8)).to(x.dtype), "at places from 257"),
        (lambda x, places: 2 * turned(x, places), "keeps the length"),
        (lambda x, places: turned(x.detach(), places).to(x.dtype), "no gradient"),
        (lambda x, places: turned(x, places), "of float64|of bfloat16"),
        (lambda x, places: turned(x, places, kind="once"), "part of the gradient"),
    ],
    "positions.soft_bins": [
        (lambda x, knots: bins(x, knots, "exchanged"), "exchanged"),
        (lambda x, knots: bins(x, knots, "hard"), "hard bin"),
        (lambda x, knots: bins(x, knots, "half"), "Half and half"),
        (lambda x, knots: bins(x, knots, "undivided"), "add up to 1"),
        (lambda x, knots: bins(x, knots, "line goes on"), "the line goes on"),
        (lambda x, knots: bins(x, knots, "beyond"), "no knot|beyond the last knot"),
        (lambda x, knots: bins(x, knots, "even"), "even distances"),
        (lambda x, knots: bins(x, knots, "no floor"), "0 / 0"),
        (lambda x, knots: bins(x, knots, "other end"), "Below the first knot"),
        (lambda x, knots: bins(x, knots, "half outside"), "Below the first knot"),
        (lambda x, knots: bins(x, knots, "zero outside"), "Below the first knot"),
        (lambda x, knots: bins(x, knots, "other at a knot"), "Where x is a knot"),
        (one_row, "should have shape"),
        (lambda x, knots: bins(x, knots)[0], "A pair is wanted"),
        (lambda x, knots: (bins(x, knots)[0], bins(x, knots)[1].float()), "should be of float64"),
    ],
}
RIGHT = {
    "positions.place_ids": [places_by_loop, places_by_where, places_by_product],
    "positions.sinusoids": [waves_by_loop, waves_by_exp, waves_by_numpy],
    "positions.rotate": [turned_complex, turned_by_matrix],
    "positions.soft_bins": [soft_by_distance, soft_by_interp],
}
