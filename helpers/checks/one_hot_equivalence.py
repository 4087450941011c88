"""Checks of lesson 02: a linear layer as a table, the price of one-hot vectors, and, of its side
lesson, places and hard choices.
"""

import math
import numbers
from itertools import pairwise

import torch
from torch import nn

from helpers.checks import (
    Wrong,
    between,
    call,
    close,
    describe,
    exercise,
    number,
    recognise,
    same,
    same_gradient,
)

# ---------------------------------------------------------------------------- 1. a table


@exercise
def as_table(answer):
    """A function nn.Linear(V, D) -> trainable nn.Embedding(V, D) with the same outputs."""
    for bias in (True, False, True):
        V, D = between(5, 8), between(2, 4)
        for rows, columns in [(V, D), (V, V), (V, 1), (1, D), (1, 1)]:
            _one_table(answer, nn.Linear(rows, columns, bias=bias))
    for dtype in (torch.float64, torch.bfloat16):
        _one_table(answer, nn.Linear(V, D, dtype=dtype))
        _one_table(answer, nn.Linear(V, D, bias=False, dtype=dtype))
    frozen = nn.Linear(V, D).requires_grad_(False)
    _one_table(answer, frozen)
    return "Aᵀ + b, in memory of its own, and it can learn."


def _one_table(answer, linear) -> None:
    """Judge the reader's table for this layer."""
    V, D = linear.in_features, linear.out_features
    before = {name: value.detach().clone() for name, value in linear.named_parameters()}
    learns = [value.requires_grad for value in linear.parameters()]
    A, b = before["weight"], before.get("bias", torch.zeros(()))
    truth = A.T + b.to(A.dtype)
    what = f"For nn.Linear({V}, {D}, bias={'bias' in before})"

    table = call(answer, linear, hints=_hints(linear))
    if not isinstance(table, nn.Embedding):
        raise Wrong(f"Return an nn.Embedding, not {describe(table)}.")
    _untouched(linear, before, learns)
    _values(table, truth, A, b, what)
    _trainable(table)
    _alone(table, linear, what)
    _learns(table, truth)


def _hints(linear) -> dict[str, str]:
    V, D = linear.in_features, linear.out_features
    sides = f"Linear's weight is {D} x {V}, a table's is {V} x {D}: transpose."
    found = {
        "must match the size": sides,
        "inconsistent tensor size": sides,
        "a leaf Variable": "Writing into a parameter needs `with torch.no_grad():` around it.",
        "same dtype": "Its numbers and your one-hot vectors have different dtypes. The layer may "
        "hold float64: make yours like linear.weight.dtype.",
    }
    if linear.bias is None:
        found["NoneType"] = "Some linear layers have no bias: there `linear.bias` is None."
    return found


def _untouched(linear, before, learns) -> None:
    """`Wrong` where the layer that was given is another one now."""
    for name, value in before.items():
        now = getattr(linear, name)
        if not isinstance(now, torch.Tensor) or not torch.equal(now, value):
            raise Wrong(f"You changed the linear layer's {name}. It should stay as it was.")
    if [value.requires_grad for value in linear.parameters()] != learns:
        raise Wrong("You changed which parameters of the linear layer learn. Leave it as it was.")


def _values(table, truth, A, b, what) -> None:
    """`Wrong` unless the table's rows are Aᵀ + b, in the dtype of A."""
    weight = table.weight.detach()
    V, D = truth.shape
    if weight.shape != truth.shape:
        if weight.shape == (D, V):
            raise Wrong(f"Linear's weight is {D} x {V}, a table's is {V} x {D}: transpose.")
        raise Wrong(f"{what} the table's weight has shape {tuple(weight.shape)}, not {(V, D)}.")
    if weight.dtype != truth.dtype:
        raise Wrong(f"The layer holds {truth.dtype}, your table {weight.dtype}. Keep the dtype.")
    if (table.num_embeddings, table.embedding_dim) != (V, D):
        raise Wrong(f"The weight fits, but the table says that it has {table.num_embeddings} rows.")
    if close(weight, truth):
        return
    mistakes = [
        (A.T, "The bias is missing: the layer adds b to every row."),
        (A.T - b, "You took the bias away. The layer adds it."),
        (A.T + 2 * b, "The bias is in your rows twice."),
        (A.reshape(V, D), "reshape puts the numbers in other places. Transpose: .T"),
        (A.reshape(V, D) + b, "reshape puts the numbers in other places. Transpose: .T"),
    ]
    if V == D:
        square = "For V = D no shape tells: an id's numbers stand in a column of A, so transpose."
        early = "Add the bias after the transposition: it has one number a column of the table."
        mistakes = [(A, square), (A + b, square), ((A + b).T, early), *mistakes]
    recognise(weight, mistakes)
    raise Wrong(f"{what} the rows are not the layer's outputs for one-hot vectors.")


def _trainable(table) -> None:
    if dict(table.named_parameters()).get("weight") is not table.weight:
        raise Wrong("The rows are right, but no optimizer can hold this weight: nn.Parameter.")
    if not table.weight.requires_grad:
        raise Wrong("The rows are right, but the table is frozen: it cannot learn. freeze=False")


def _alone(table, linear, what) -> None:
    """`Wrong` where a step on one of the two moves the other."""
    rows = table.weight.detach().clone()
    kept = [value.detach().clone() for value in linear.parameters()]
    with torch.no_grad():
        table.weight.add_(1.0)
        shared = not all(map(torch.equal, linear.parameters(), kept))
        table.weight.copy_(rows)
        for value, before in zip(linear.parameters(), kept, strict=True):
            value.add_(1.0)
            shared = shared or not torch.equal(table.weight, rows)
            value.copy_(before)
        table.weight.copy_(rows)
    if shared:
        raise Wrong(
            f"{what} the rows are right, but both layers share memory: a view such as .T, and "
            "sometimes .contiguous(), copies nothing."
        )


def _learns(table, truth) -> None:
    """`Wrong` where an option of the table stops, scales or rewrites rows."""
    V = table.num_embeddings
    ids = torch.randint(V, (3, 5))
    ids[0, :2], ids[1, 0] = V - 1, 0  # the ends, and the last one twice
    weight = truth.clone().requires_grad_()
    value = call(table, ids, name="your table")
    if not close(value, truth[ids]) or not close(table.weight.detach(), truth):
        raise Wrong("A look-up changes your rows. Does the table have a max_norm?")
    try:
        same_gradient(value, weight[ids], table.weight, weight)
    except Wrong:
        raise Wrong(
            "The rows are right, but not all of them learn as they should. Does the table have an "
            "option, such as padding_idx or scale_grad_by_freq?"
        ) from None


# ---------------------------------------------------------------------------- 2. the price


@exercise
def largest_vocabulary(answer):
    """A function (N, widths, percent) -> the largest V whose one-hot vectors are a detail."""
    for _ in range(3):  # sizes for which no mistake equals another
        deep = [between(600, 700), *(between(200, 280) for _ in range(3))]  # the work decides
        many = [between(9000, 12000), *(between(100, 200) for _ in range(3))]  # as here
        wide = [between(600, 900), *(between(9000, 12000) for _ in range(between(1, 3)))]  # memory
        networks = [(5, deep, between(4, 5)), (5, many, between(8, 15)), (5, wide, between(8, 15))]
        if all(_said(answer, *network) == max(_bounds(*network)) for network in networks):
            raise Wrong("Both conditions must hold: take the smaller of the two V.")
        layers = sum(a * b for a, b in pairwise(many))
        if _said(answer, *networks[1]) == networks[1][2] * layers // many[0]:
            raise Wrong("Percent are hundredths: divide by 100.")
        for network in networks:
            _one_network(answer, *network)
    _one_network(answer, 8192, [256, 256], 25)  # 64, and exactly a quarter of the work
    _one_network(answer, 100, [3 * between(40, 60), 2000], 100)  # exactly the bytes of the rows
    for D in (1, 2, 3):
        _one_network(answer, 1, [D, 500], 100)
    return "V against the widths of the network, whatever the batch: N cancels twice."


def _bounds(N: int, widths: list[int], percent: int) -> tuple[int, int]:
    """The largest V by memory and by work."""
    D = widths[0]
    return D // 3, percent * sum(a * b for a, b in pairwise(widths)) // (100 * D)


def _said(answer, N: int, widths: list[int], percent: int) -> numbers.Real:
    given = list(widths)
    value = number(call(answer, N, given, percent), "V")
    if given != widths:
        raise Wrong("Your function changed the list of widths. Leave it as it was.")
    if not math.isfinite(value) or value != int(value):
        raise Wrong(f"V is a number of rows, so a whole one; you say {value:.6g}.")
    return value


def _one_network(answer, N: int, widths: list[int], percent: int) -> None:
    """Judge the reader's V for this network."""
    value, (memory, work) = _said(answer, N, widths, percent), _bounds(N, widths, percent)
    truth = min(memory, work)
    if value == truth:
        return
    layers = sum(a * b for a, b in pairwise(widths))
    product, share = 2 * N * value * widths[0], 2 * N * layers * percent / 100
    made, rows = 12 * N * value, 4 * N * widths[0]
    cancels = "The product has N lines, and the rows and all the layers have N too: N cancels."
    mistakes = [
        (truth - 1, "One more fits: at most means that equal is allowed."),
        (truth + 1, "One too many. Round down."),
        (memory, f"The product has {product:,.0f} operations, and {share:,.0f} are allowed."),
        (work, f"The vectors of both kinds take {made:,.0f} bytes, and the rows {rows:,}."),
        (widths[0], "The float32 vectors alone would fit. int64 ones are alive beside them."),
        (widths[0] // 2, "The int64 vectors alone would fit. float32 ones are made beside them."),
        (percent * widths[1] // 100, "You count the next layer only. The network has others too."),
        *((part, cancels) for bound in (memory, work) for part in (bound // N, bound * N) if part),
    ]
    recognise(value, mistakes, near=lambda one, other: one == other)
    raise Wrong(
        f"For ({N}, {widths}, {percent}) you say {value:.0f}. Its vectors take {made:,.0f} bytes "
        f"({rows:,} allowed), the product {product:,.0f} operations ({share:,.0f} allowed)."
    )


# ---------------------------------------------------------------------------- side lesson


@exercise
def places(answer):
    """A function (ids, V) -> for each row a place where it stands among the ids, or -1."""
    for V in [between(5, 8), 1, *(between(2, 9) for _ in range(3))]:
        some = torch.randperm(V)
        twice = torch.cat([some, some[:2]])
        batches = [some, twice, some[1:], torch.cat([some[1:], some[1:]]), some[:0], some[:1]]
        batches += [torch.arange(V), torch.arange(V - 1), torch.randint(V, (V,))]
        for ids in batches:
            _one_batch(answer, ids, V)
        _one_batch(answer, twice.int(), V)
    return "Where no -1 is left, rows[back] is the table again: the selection can be undone."


def _one_batch(answer, ids, V: int) -> None:
    """Judge the reader's places for these ids."""
    value = call(answer, ids, V)
    try:
        back = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"Return a tensor of {V} places, not {describe(value)}.") from None
    given = f"For ids {ids.tolist()} and V = {V}"
    if back.shape != (V,):
        raise Wrong(
            f"{given} your answer has shape {tuple(back.shape)}: one place for each of the V rows, "
            f"({V},), is wanted."
        )
    if back.is_floating_point() or back.is_complex() or back.dtype == torch.bool:
        raise Wrong(f"Places are whole numbers, not {back.dtype}.")
    standing = set(ids.tolist())
    said = back.tolist()
    for row, place in enumerate(said):
        if row not in standing and place != -1:
            raise Wrong(f"{given} row {row} stands nowhere, and you say {place}: -1 is wanted.")
        if row in standing and place < 0:
            raise Wrong(f"{given} row {row} does stand there, and you say {place}.")
    if all(place < len(ids) for place in said):
        if all(place < 0 or ids[place] == row for row, place in enumerate(said)):
            return
    if said == ids.tolist():
        raise Wrong(f"{given} you say the ids themselves. Which place does row 0 stand at?")
    if said == ids.bincount(minlength=V).tolist():
        raise Wrong(f"{given} you count how often each row stands there. Where does it stand?")
    raise Wrong(f"{given} you say {said}: ids[back] should be 0, 1, 2 and so on.")


@exercise
def hard_look_up(answer):
    """A function (logits, E) -> rows of the largest scores, with the gradient of the mixture."""
    for dtype in (torch.float32, torch.float64):
        V, D, n = between(3, 6), between(2, 5), between(2, 4)
        for v, d in [(V, D), (V, V), (V, 1), (1, D)]:
            for shape in [(n,), (), (v,), (n, v), (2, n, 3), (0,)]:
                _one_choice(answer, torch.randn(*shape, v, dtype=dtype), d)
        _one_choice(answer, 1000 * torch.randn(n, V, dtype=dtype), D)
        _one_choice(answer, torch.randn(n, V, dtype=dtype) - 1000, D)
    return "The value of a look-up, and the gradient of a mixture: a straight-through estimator."


def _one_choice(answer, scores, D) -> None:
    """Judge the reader's rows for these scores and a table of D columns."""
    logits = (2 * scores).requires_grad_()
    E = torch.randn(scores.shape[-1], D, dtype=scores.dtype).requires_grad_()
    kept = []

    def given(mine, rows):
        kept[:] = [mine, rows]
        return answer(mine, rows)

    value = call(given if callable(answer) else answer, logits, E)
    mixture, rows = torch.softmax(logits, -1) @ E, E[logits.argmax(-1)]
    right = same(value, rows.detach(), f"The answer for logits of shape {tuple(logits.shape)}")
    if not right and value.isnan().any():
        raise Wrong("Large scores, or very small ones, give NaN. torch.softmax takes care of that.")
    if not right:
        soft, hard = mixture.detach(), rows.detach()
        recognise(
            value,
            [
                (soft, "The value is the mixture's. Wanted is the row of the largest score."),
                (
                    soft + hard,
                    "Both are added. Take the mixture's value off: detached, it has no "
                    "gradient to lose.",
                ),
                (2 * soft - hard, "A sign: add the row and take the mixture off, both detached."),
                (E[logits.argmin(-1)].detach(), "That is the row of the smallest score."),
                (logits.detach() @ E.detach(), "The scores themselves are no weights."),
            ],
        )
        raise Wrong("The shape is right, but these are not the rows of the largest scores.")
    _learnt(value, mixture, kept, (logits, E))


def _learnt(value, mixture, mine, theirs) -> None:
    """`Wrong` unless logits get the mixture's gradient, and the table gets one."""
    cut = "The rows are right, but no gradient gets back to the {}: it was detached, or has none."
    upstream = torch.randn_like(mixture)
    inputs = {"allow_unused": True, "retain_graph": True}
    wanted, _ = torch.autograd.grad(mixture, theirs, upstream, **inputs)
    if not value.requires_grad:
        raise Wrong(cut.format("logits"))
    found, of_table = torch.autograd.grad(value, mine, upstream, **inputs)
    if found is None:
        raise Wrong(cut.format("logits") + " argmax has no gradient; a mixture has one.")
    if not close(found, wanted):
        axes = range(theirs[0].dim() - 1)
        for over in (torch.softmax(theirs[0], d) @ theirs[1] for d in axes):
            if close(found, torch.autograd.grad(over, theirs[0], upstream)[0]):
                raise Wrong("Right rows, but your softmax runs over the batch: dim=-1.")
        raise Wrong("The rows are right, but the logits get another gradient than the mixture's.")
    if of_table is None or (mixture.numel() and not of_table.any()):
        raise Wrong(cut.format("table"))
