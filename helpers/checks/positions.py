"""Checks of lesson 09: places of real tokens, sinusoids, rotary positions, soft bins."""

import numpy as np
import torch
import torch.nn.functional as F

from helpers.checks import Wrong, between, call, called, describe, exercise, recognise


def _numbers(value, shape, what, dtypes=(torch.float32, torch.float64)) -> torch.Tensor:
    """`value`, if it is a tensor of this shape and of one of these dtypes; `Wrong` else."""
    if not isinstance(value, torch.Tensor):
        raise Wrong(f"{what} should be a tensor, not {describe(value)}.")
    if value.dtype not in dtypes:
        kind = str(dtypes[0]).removeprefix("torch.")
        raise Wrong(f"{what} should be of {kind}, not {str(value.dtype).removeprefix('torch.')}.")
    if value.shape != torch.Size(shape):
        raise Wrong(f"{what} should have shape {tuple(shape)}, not {tuple(value.shape)}.")
    return value.detach()


def _near(value, other, off=2e-4) -> bool:
    """Whether they are equal but for float32's rounding of angles up to some hundred."""
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), 0, off)


INTEGERS = (torch.int64, torch.int32)


def _masks() -> list[torch.Tensor]:
    """Masks (B, T), padding right, left and anywhere; the ends of the range; a long one."""
    B, T = between(2, 6), between(3, 9)
    lengths = torch.randint(1, T + 1, (B,))
    lengths[0] = T
    right = torch.arange(T) < lengths[:, None]
    anywhere = torch.rand(between(2, 5), between(4, 9)) < 0.6
    anywhere[0, :2], anywhere[-1, -2:] = torch.tensor([False, True]), torch.tensor([True, False])
    some = [right.flip(1), right, anywhere]
    some += [torch.ones(between(2, 4), between(2, 6)).bool(), torch.zeros(1, between(1, 4)).bool()]
    some += [torch.ones(between(2, 4), 1).bool(), torch.ones(0, between(2, 5)).bool()]
    return [*some, torch.rand(2, between(300, 400)) < 0.95]


@exercise
def place_ids(answer):
    """A function mask (B, T) -> the place of each real token among those of its sequence."""
    for _ in range(3):
        for mask in _masks():
            for dtype in (torch.bool, torch.int64):
                _judge_places(call(answer, mask.to(dtype)), mask)
    return "Each real token has the place that it would have without padding."


def _judge_places(value, mask) -> None:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        raise Wrong("nn.Embedding takes no float ids. Keep to integers.")
    if isinstance(value, torch.Tensor) and value.dtype == torch.int32:
        raise Wrong("The result should be of int64, not int32: end on .long().")
    value = _numbers(value, mask.shape, "The result", (torch.int64,))
    truth = torch.zeros(mask.shape, dtype=torch.int64)
    for row, real in enumerate(mask):
        truth[row, real] = torch.arange(int(real.sum()))
    if torch.equal(value, truth):
        return
    ones = mask.long()
    if mask.shape[1] > 200 and mask.sum() > 200 and value.max() < 128:
        raise Wrong("On a sequence of 300 tokens the count comes round: eight bits are too few.")

    def like(mistake: torch.Tensor) -> bool:  # and told apart from the right answer
        mistake, right = mistake.expand(mask.shape)[mask], truth[mask]
        return torch.equal(value[mask], mistake) and not torch.equal(mistake, right)

    columns, through = torch.arange(mask.shape[1]), truth.clone()
    through[mask] = torch.arange(int(ones.sum()))
    first = ones.argmax(dim=1, keepdim=True)
    if like(columns) and first.any():
        raise Wrong("The padding is counted too. Where it stands on the left, no word gets 0.")
    if like(ones.cumsum(0) - 1):
        raise Wrong("This counts down the batch. Tokens of a sequence stand along dimension 1.")
    if like(through):
        raise Wrong("The count goes on from one sequence to the next. Each starts at 0.")
    if (value < 0).any():
        raise Wrong("Some place is negative, which nn.Embedding refuses. Padding gets 0.")
    if torch.equal(value[mask], truth[mask]):
        raise Wrong("The real tokens are right. Padding should get 0, wherever it stands.")
    if like(truth + 1):
        raise Wrong("Places are counted from 0: a sequence's first real token gets 0, not 1.")
    if like(truth + (~mask).sum(1, keepdim=True)):
        raise Wrong("Each place is off by the number of padding tokens of its sequence.")
    if like(ones.flip(1).cumsum(1).flip(1) - 1):
        raise Wrong("This counts from the end. The first real token gets 0.")
    if like(columns - first):
        raise Wrong("Right for padding at the ends. Padding between two words is counted here.")
    row = int((value != truth).any(dim=1).nonzero()[0])
    shown = ones[row].tolist()
    if len(shown) > 12:
        raise Wrong("Right for short sequences, not for one of some hundred tokens.")
    raise Wrong(f"For the mask {shown} the places are {truth[row].tolist()}.")


def _sinusoids(T, D, step=lambda i, D: 2 * i / D, first=0, unit=1.0) -> torch.Tensor:
    """Sines in even columns and cosines in odd ones, in float64; options make known mistakes."""
    table = torch.empty(T, D, dtype=torch.float64)
    for p in range(T):
        for i in range(D // 2):
            angle = torch.tensor(unit * (p + first) / 10_000 ** step(i, D), dtype=torch.float64)
            table[p, 2 * i], table[p, 2 * i + 1] = angle.sin(), angle.cos()
    return table


@exercise
def sinusoids(answer):
    """A function (T, D) -> the sinusoidal table (T, D)."""
    sizes = [(3, 6), (between(5, 11), 4), (between(12, 40), 2 * between(3, 9)), (between(3, 8), 2)]
    sizes += [(1, 2 * between(1, 5)), (3, 2 * between(4, 8)), (0, 4), (between(300, 400), 6)]
    for T, D in sizes:
        value = call(answer, T, D)
        if isinstance(value, torch.Tensor) and value.shape == (D, T) != (T, D):
            raise Wrong("The table is lying on its side: a row for each place, (T, D).")
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise Wrong("The table asks for a gradient. A formula learns nothing: a plain tensor.")
        value = _numbers(value, (T, D), "The table", (torch.float32,))
        truth = _sinusoids(T, D)
        if _near(value, truth, 1e-3):
            continue
        if T > 128:
            raise Wrong(
                f"Right for few places, not for {T}. Do the places, or the angles, have too few "
                "bits (int8, uint8, bfloat16)?"
            )
        if not value.isfinite().all():
            raise Wrong("Not every number is finite. Is the angle multiplied by 10,000 to a power?")
        paired = truth.unflatten(1, (-1, 2))
        column = torch.arange(D, dtype=torch.float64)
        each = torch.arange(T)[:, None] / 10_000 ** (column / D)
        twice = torch.arange(T)[:, None] / 10_000 ** (2 * column / D)
        over = torch.arange(T)[:, None] * 10_000 ** (torch.arange(0, D, 2).double() / D)
        hints = [
            (paired.mT.flatten(1), "All sines, then all cosines: here they take turns."),
            (paired.flip(2).flatten(1), "Sine and cosine are exchanged: place 0 is 0, 1, 0, 1."),
            (_sinusoids(T, D, first=1), "The first place is 0, not 1."),
            (_sinusoids(T, D, lambda i, D: i / D), "The exponent is 2 i / D for pair i."),
            (_sinusoids(T, D, lambda i, D: 4 * i / D), "The exponent is 2 i / D for pair i."),
            (_sinusoids(T, D, unit=torch.pi / 180), "The angle is in radians already."),
            (_sinusoids(T, D, unit=2 * torch.pi), "Nothing asks for a factor of 2 pi."),
            (_sinusoids(T, D, lambda i, D: 2 * i), "D is missing in the exponent 2 i / D."),
            (
                torch.where(torch.arange(D) % 2 == 0, each.sin(), each.cos()),
                "Both columns of pair i share one angle; yours differ from column to column.",
            ),
            (
                torch.where(column % 2 == 0, twice.sin(), twice.cos()),
                "Both columns of pair i share one angle: i is the number of the pair, not of "
                "the column.",
            ),
            (
                torch.stack([over.sin(), over.cos()], 2).flatten(1),
                "The angle is the place divided by 10,000^(2 i / D), not multiplied by it.",
            ),
            (
                _sinusoids(T, D, lambda i, D: 2 * i / (D - 2) if D > 2 else 0),
                "The exponent is 2 i / D. Yours reaches 1 at the last pair.",
            ),
        ]
        recognise(value, hints, _near)
        if T == 1:
            raise Wrong("For a single place, 0, the row is 0, 1, 0, 1.")
        place, column = ((value - truth).abs() > 1e-3).nonzero()[0].tolist()
        raise Wrong(
            f"Place {place}, column {column}: {truth[place, column]:.4f} is wanted, "
            f"not {value[place, column]:.4f}."
        )
    return "A row for every place, and not one parameter."


def _turned(x, places, sign=1, base=10_000.0) -> torch.Tensor:
    """Each pair of neighbours as a complex number, times one of length 1."""
    D = x.shape[-1]
    angles = places.double()[:, None] / base ** (torch.arange(0, D, 2).double() / D)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), sign * angles)
    return torch.view_as_real(turned).flatten(-2)


@exercise
def rotate(answer):
    """A function (x (..., T, D), places (T,)) -> x with its pairs turned by the places' angles."""
    B, heads, T, D = between(2, 3), between(2, 4), between(4, 9), 2 * between(2, 5)
    usual = [(T, D), (B, T, D), (B, heads, T, D), (1, 2), (D, D), (T, 2), (0, T, D), (B, 0, D)]
    dtypes = [torch.float32] * len(usual) + [torch.float64, torch.bfloat16, torch.float32]
    for shape, dtype in zip([*usual, (B, T, D), (B, T, D), (T, D)], dtypes, strict=True):
        T, D = shape[-2:]
        x = torch.randn(shape).to(dtype).requires_grad_(dtype == torch.float32)
        places = torch.randperm(40)[:T]
        if dtype != torch.float32:
            places = places.int() + between(257, 300)
            places[1] = places[0] + 1  # one of them is odd, which bfloat16 cannot hold
        found, (given, _) = called(answer, x, places)
        value = _numbers(found, shape, "The result", (dtype,)).double()
        truth = _turned(x, places)
        if _near(value, truth, {torch.bfloat16: 0.08}.get(dtype, 2e-4)):
            if x.requires_grad and x.numel():
                _same_turn_back(found, given, places)
            continue
        if dtype != torch.float32:
            raise Wrong(
                f"Right in float32, not for x of {str(dtype).removeprefix('torch.')} at places "
                "from 257 on. Do the places, or the angles, have too few bits (x's dtype, uint8)?"
            )
        x = x.detach()
        halves = torch.cat([x[..., ::2], x[..., 1::2]], -1)
        split = torch.stack([x[..., : D // 2], x[..., D // 2 :]], -1).flatten(-2)
        sines = _turned(torch.tensor([0.0, 1.0]).repeat(D // 2).expand(T, D), places, -1)
        even, odd = x[..., ::2], x[..., 1::2]
        sine, cosine = sines[:, ::2], sines[:, 1::2]
        together = _turned(split, places).unflatten(-1, (-1, 2)).mT.flatten(-2)
        hints = [
            (_turned(x, places, -1), "It turns the other way: (1, 0) goes to (cos, sin)."),
            (_turned(x, torch.arange(T)), "Turn by the places given, not by 0, 1, 2, ..."),
            (together, "Pairs are neighbours here, columns 2 i and 2 i + 1, not the two halves."),
            (
                _turned(halves, places),
                "The result's columns are in another order: pair i stays in columns 2 i, 2 i + 1.",
            ),
            (
                truth.unflatten(-1, (-1, 2)).mT.flatten(-2),
                "The numbers are right and stand elsewhere: pair i is columns 2 i and 2 i + 1.",
            ),
            (x + sines, "This adds the sinusoids. Rotary multiplies: it turns each pair."),
            (_turned(x, places, base=100.0), "The exponent is 2 i / D for pair i, not i / D."),
            (_turned(x, places, base=1e8), "The exponent is 2 i / D for pair i, not 4 i / D."),
            (_turned(x, places, base=1.0), "All pairs turn by the same angle. Each has its own."),
            (
                torch.stack([even * cosine, odd * cosine], -1).flatten(-2),
                "Only cosines. A turn mixes the two of a pair: a cos - b sin, a sin + b cos.",
            ),
            (x * sines, "This multiplies number by number; a turn mixes the two of a pair."),
            (
                torch.stack([even * cosine + odd * sine, even * sine + odd * cosine], -1).flatten(
                    -2
                ),
                "A sign is missing: a cos - b sin, a sin + b cos.",
            ),
            (_overwritten(x, places), "The second line uses a after the first has changed it."),
        ]
        recognise(value, hints, _near)
        length, wanted = (v.unflatten(-1, (-1, 2)).norm(dim=-1) for v in (value, x.double()))
        if not _near(length, wanted):
            raise Wrong("A turn keeps the length of every pair; yours does not.")
        raise Wrong("Each pair keeps its length, but turns by another angle than the place's.")
    return "Nothing is added, nothing learned, and only distances are left in q · k."


def _same_turn_back(found, given, places) -> None:
    """`Wrong` unless the gradient that reaches x is the upstream one, turned back."""
    upstream = torch.randn(found.shape)
    cut = "The values are right, but no gradient gets back to x. Is there a detach() or no_grad()?"
    if not found.requires_grad:
        raise Wrong(cut)
    (grad,) = torch.autograd.grad(found, given, upstream, allow_unused=True)
    if grad is None:
        raise Wrong(cut)
    if not _near(grad.double(), _turned(upstream, places, -1)):
        raise Wrong("The values are right, but part of the gradient to x is cut off or scaled.")


def _overwritten(x, places) -> torch.Tensor:
    """What comes of `a = a cos - b sin; b = a sin + b cos`."""
    turned = _turned(x, places)
    angles = torch.view_as_complex(
        _turned(torch.tensor([1.0, 0.0]).repeat(x.shape[-1] // 2).expand_as(x), places)
        .unflatten(-1, (-1, 2))
        .contiguous()
    )
    first = turned[..., ::2]
    return torch.stack([first, first * angles.imag + x[..., 1::2] * angles.real], -1).flatten(-2)


@exercise
def soft_bins(answer):
    """A function (x (N,), knots (M,)) -> ids and weights, both (N, 2), of each x's two rows."""
    for M in (between(4, 8), 2, 3, between(9, 30), between(4, 8)):
        knots = torch.cumsum(0.2 + torch.rand(M), 0) - 2
        low, high = knots[0].item(), knots[-1].item()
        inside = low + (high - low) * torch.rand(between(15, 25))
        for x in (inside, knots.clone(), torch.tensor([low - 3, high + 2, low - 0.01])):
            _judge_bins(answer, x, knots)
        _judge_bins(answer, inside[:1], knots)
        _judge_bins(answer, inside[:0], knots)
        _judge_bins(answer, inside.double(), knots.double())
    return "Two rows of a table, weighted: a line from knot to knot, and a weight for each knot."


BAG_HINTS = {
    "out of range": "An id is beyond the last knot. x may be the last knot, or larger.",
    "out of bounds": "An id is beyond the last knot. x may be the last knot, or larger.",
}


def _judge_bins(answer, x, knots) -> None:
    pair = call(answer, x, knots, hints=BAG_HINTS)
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Wrong(f"A pair is wanted, ids and weights, not {describe(pair)}.")
    N, M = len(x), len(knots)
    ids = _numbers(pair[0], (N, 2), "The ids", INTEGERS)
    weights = _numbers(pair[1], (N, 2), "The weights", (x.dtype,)).float()
    if not weights.isfinite().all():
        raise Wrong("A weight is NaN or infinite: 0 / 0. Where are the left and right knot one?")
    if N == 0:
        return
    x, knots = x.float(), knots.float()
    if (ids < 0).any() or (ids >= M).any():
        bad = ids[(ids < 0) | (ids >= M)][0].item()
        raise Wrong(f"Id {bad} is no knot: there are {M}, and x may lie outside of them.")
    table = torch.randn(M, 3)
    value = F.embedding_bag(ids, table, per_sample_weights=weights, mode="sum")

    def interpolated(at: torch.Tensor) -> torch.Tensor:
        columns = [np.interp(x.double(), at.double(), column) for column in table.T.double()]
        return torch.from_numpy(np.stack(columns, 1))

    truth = interpolated(knots)
    if _near(value, truth, 1e-3):
        return
    total, outside = weights.sum(1), (x < knots[0]) | (x > knots[-1])
    beyond = ((weights < -1e-4) | (weights > 1.0001)).any()
    if outside.any() and beyond:
        raise Wrong("Beyond the last knot the line goes on. There, use the last row alone.")
    if outside.all() and not beyond:
        raise Wrong("Below the first knot it is the first row alone, above the last one the last.")
    if torch.isin(x, knots).all():
        raise Wrong("Where x is a knot, that knot's row has all the weight.")
    if not _near(total, torch.ones(N), 1e-3):
        raise Wrong("The two weights of a number should add up to 1. Divide by the bin's width.")
    swapped = F.embedding_bag(ids, table, per_sample_weights=weights.flip(1), mode="sum")
    if _near(swapped, truth, 1e-3):
        raise Wrong("The weights are exchanged: the nearer knot should weigh more.")
    if ((weights - 0.5).abs() > 0.499).all():
        raise Wrong("One row alone has all the weight: that is a hard bin. Share it out.")
    if _near(weights, torch.full((N, 2), 0.5), 1e-3):
        raise Wrong("Half and half, wherever x lies in the bin. The nearer knot should weigh more.")
    even = torch.linspace(knots[0].item(), knots[-1].item(), M)
    if _near(value, interpolated(even), 1e-2):
        raise Wrong("Right for knots at even distances. These are not.")
    at = int((value - truth).abs().amax(1).argmax())
    raise Wrong(
        f"x = {x[at]:.2f} with knots {[round(k, 2) for k in knots.tolist()]}: "
        "which two knots enclose it, and how near is each?"
    )
