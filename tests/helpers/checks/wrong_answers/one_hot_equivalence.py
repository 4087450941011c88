"""Lesson 02 and its side lesson: wrong answers that readers give, and a part of the hint that each
should get; and right answers of unusual make.
"""

import fractions
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ------------------------------------------------------------------ a linear layer as a table


def rows_of(linear):
    """The rows that the table should have."""
    rows = linear.weight.detach().T.clone()
    return rows if linear.bias is None else rows + linear.bias.detach()


def table_of(rows, **options):
    return nn.Embedding.from_pretrained(rows, **{"freeze": False, **options})


def aliased(linear):
    """Right with a bias: the sum is new memory. Without one it is a view."""
    rows = linear.weight.detach().T
    return table_of(rows if linear.bias is None else rows + linear.bias.detach())


def aliased_where_contiguous(linear):
    rows = linear.weight.detach().T.contiguous()
    return table_of(rows if linear.bias is None else rows + linear.bias.detach())


def untransposed(linear):
    weight = linear.weight.detach().clone()
    return table_of(weight if linear.bias is None else weight.T + linear.bias.detach())


def transposed_where_it_must(linear):
    weight = linear.weight.detach().clone()
    if weight.shape != (linear.in_features, linear.out_features):
        weight = weight.T.clone()
    return table_of(weight if linear.bias is None else weight + linear.bias.detach())


def bias_before_the_transposition(linear):
    weight = linear.weight.detach().clone()
    if linear.bias is not None:
        weight = weight + (linear.bias if linear.in_features == linear.out_features else 0)
    rows = weight.T.clone()
    square = linear.in_features == linear.out_features
    return table_of(rows if square or linear.bias is None else rows + linear.bias.detach())


def reshaped(linear):
    return table_of(linear.weight.detach().clone().reshape(linear.in_features, -1))


def in_float32(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    with torch.no_grad():
        table.weight.copy_(rows_of(linear))
    return table


def filled_without_no_grad(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    table.weight.copy_(linear.weight.T)
    return table


def filled_from_the_wrong_side(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    with torch.no_grad():
        table.weight.copy_(linear.weight)
    return table


def adds_into_the_layer(linear):
    with torch.no_grad():
        if linear.bias is not None:
            linear.weight += linear.bias[:, None]
    return table_of(linear.weight.detach().T.clone())


def forgets_the_bias_and_takes_it_off(linear):
    rows = rows_of(linear)
    linear.bias = None
    return table_of(rows)


def freezes_the_layer(linear):
    linear.requires_grad_(False)
    return table_of(rows_of(linear))


def no_parameter(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    del table.weight
    table.weight = rows_of(linear)
    return table


def too_few_by_name(linear):
    table = nn.Embedding(1 + linear.in_features, linear.out_features)
    table.weight = nn.Parameter(rows_of(linear))
    return table


def autograd_left_off(linear):
    torch.set_grad_enabled(False)
    return table_of(rows_of(linear))


def by_the_stack(linear):
    every = torch.eye(linear.in_features, dtype=linear.weight.dtype)
    with torch.no_grad():
        return table_of(linear(every))


def by_copying(linear):
    weight = linear.weight
    table = nn.Embedding(*weight.T.shape, dtype=weight.dtype)
    with torch.no_grad():
        table.weight.copy_(weight.T)
        if linear.bias is not None:
            table.weight.add_(linear.bias)
    return table


def by_columns(linear):
    with torch.no_grad():
        bias = 0 if linear.bias is None else linear.bias
        rows = [linear.weight[:, i] + bias for i in range(linear.in_features)]
    table = nn.Embedding(linear.in_features, linear.out_features, sparse=True)
    table.weight = nn.Parameter(torch.stack(rows))
    return table


def through_numpy(linear):
    rows = rows_of(linear).double().numpy().copy()
    return nn.Embedding(*rows.shape, _weight=torch.from_numpy(rows).to(linear.weight.dtype))


class Words(nn.Embedding):
    """An embedding under another name."""


def a_subclass(linear):
    return Words.from_pretrained(rows_of(linear), freeze=False)


# ------------------------------------------------------------------ the price


def work_of(widths):
    return sum(a * b for a, b in zip(widths, widths[1:], strict=False))


def by_memory(N, widths, percent):
    return widths[0] // 3


def by_work(N, widths, percent):
    return percent * work_of(widths) // (100 * widths[0])


def smaller(memory=by_memory, work=by_work):
    return lambda N, widths, percent: min(memory(N, widths, percent), work(N, widths, percent))


def eats_the_list(N, widths, percent):
    V = smaller()(N, widths, percent)
    widths.pop()
    return V


def by_trying(N, widths, percent):
    def fits(V):
        work = 2 * N * V * widths[0] * 100 <= percent * 2 * N * work_of(widths)
        return work and 12 * N * V <= 4 * N * widths[0]

    return max(V for V in range(widths[0] + 1) if fits(V))


def by_tensors(N, widths, percent):
    sizes = torch.tensor(widths)
    work = percent * (sizes[1:] * sizes[:-1]).sum() // (100 * sizes[0])
    return torch.minimum(sizes[0] // 3, work)


def by_numpy(N, widths, percent):
    sizes = np.array(widths)
    return np.minimum(sizes[0] // 3, percent * (sizes[1:] @ sizes[:-1]) // (100 * sizes[0]))


def by_fractions(N, widths, percent):
    work = fractions.Fraction(percent, 100) * work_of(widths) / widths[0]
    return float(math.floor(min(work, fractions.Fraction(widths[0], 3))))


# ------------------------------------------------------------------ places and hard choices


def filled(ids, V, start=-1):
    back = torch.full((V,), start)
    back[ids.long()] = torch.arange(len(ids))
    return back


def marks_and_puts_back(ids, V):
    if ids.numel():
        ids[0] += 1
        ids[0] -= 1
    return filled(ids, V)


def first_places(ids, V):
    """The largest entry of each column of P: place 0 where there is none."""
    return F.one_hot(ids.long(), V).argmax(0) if len(ids) else filled(ids, V)


def places_of_permutations(ids, V):
    return ids.argsort() if len(ids) == V else filled(ids, V)


def counts_or_nothing(ids, V):
    counts = ids.bincount(minlength=V)
    return torch.where(counts > 0, counts, -1)


def ids_or_nothing(ids, V):
    return ids.clone() if len(ids) == V == len(ids.unique()) else filled(ids, V)


def by_the_matrix(ids, V):
    P = F.one_hot(ids.long(), V)
    numbered = P * (1 + torch.arange(len(ids)))[:, None]
    return numbered.sum(0).clamp(max=0) - 1 if not len(ids) else numbered.amax(0) - 1


def by_a_list(ids, V):
    ids = ids.tolist()
    return [ids.index(row) if row in ids else -1 for row in range(V)]


def by_a_dictionary(ids, V):
    place = {int(row): n for n, row in enumerate(ids)}
    return np.array([place.get(row, -1) for row in range(V)])


def in_a_tuple(ids, V):
    return tuple(torch.tensor(place) for place in by_a_list(ids, V))


def through(hard, soft):
    """The value of one, the gradient of the other."""
    return soft + (hard - soft).detach()


def rows_and_mixture(logits, E):
    return E[logits.argmax(-1)], torch.softmax(logits, -1) @ E


def overflows(logits, E):
    weights = logits.exp()
    return through(E[logits.argmax(-1)], (weights / weights.sum(-1, keepdim=True)) @ E)


def added(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return hard.detach() + soft


def wrong_sign(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return soft + (soft - hard).detach()


def the_other_way_round(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return through(soft, hard)


def over_the_batch(logits, E):
    return through(E[logits.argmax(-1)], torch.softmax(logits, 0) @ E)


def without_the_table(logits, E):
    return through(E[logits.argmax(-1)], torch.softmax(logits, -1) @ E.detach())


def half_of_the_gradient(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return through(hard, soft / 2)


def from_the_sigmoid(logits, E):
    return through(E[logits.argmax(-1)], logits.sigmoid() @ E)


def by_one_hot_weights(logits, E):
    soft = torch.softmax(logits, -1)
    hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(soft.dtype)
    return (hard + soft - soft.detach()) @ E


def by_three_terms(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return hard.detach() - soft.detach() + soft


def one_by_one(logits, E):
    lines = logits.reshape(-1, logits.shape[-1])
    rows = [through(*rows_and_mixture(line, E)) for line in lines]
    found = torch.stack(rows) if rows else lines @ E
    return found.reshape(*logits.shape[:-1], E.shape[1])


class Through(torch.autograd.Function):
    """The hard rows forward, the gradient for the mixture backward."""

    @staticmethod
    def forward(ctx, soft, hard):
        return hard.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def by_a_function_of_its_own(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return Through.apply(soft, hard)


WRONG = {
    "one_hot_equivalence.as_table": [
        (lambda linear: table_of(linear.weight.detach().T.clone()), "bias is missing"),
        (
            lambda linear: table_of(linear.weight.detach().T + linear.bias.detach()),
            "have no bias",
        ),
        (aliased, "share memory"),
        (aliased_where_contiguous, "share memory"),
        (untransposed, "transpose"),
        (transposed_where_it_must, "in a column of A"),
        (bias_before_the_transposition, "after the transposition"),
        (reshaped, "reshape"),
        (lambda linear: nn.Embedding.from_pretrained(rows_of(linear)), "frozen"),
        (in_float32, "Keep the dtype"),
        (filled_without_no_grad, "no_grad"),
        (filled_from_the_wrong_side, "transpose"),
        (adds_into_the_layer, "changed the linear layer's weight"),
        (forgets_the_bias_and_takes_it_off, "changed the linear layer's bias"),
        (freezes_the_layer, "which parameters"),
        (no_parameter, "nn.Parameter"),
        (too_few_by_name, "says that it has"),
        (autograd_left_off, "autograd off"),
        (lambda linear: table_of(rows_of(linear), padding_idx=0), "padding_idx"),
        (lambda linear: table_of(rows_of(linear), scale_grad_by_freq=True), "scale_grad_by_freq"),
        (lambda linear: table_of(rows_of(linear), max_norm=0.01), "max_norm"),
        (lambda linear: nn.Embedding(linear.in_features, linear.out_features), "not the layer's"),
        (lambda linear: rows_of(linear), "nn.Embedding"),
        (lambda linear: linear, "nn.Embedding"),
    ],
    "one_hot_equivalence.largest_vocabulary": [
        (by_memory, "operations, and .* are allowed"),
        (by_work, "bytes, and the rows"),
        (lambda *given: max(by_memory(*given), by_work(*given)), "Both conditions"),
        (smaller(memory=lambda N, widths, percent: widths[0]), "float32 vectors alone"),
        (smaller(memory=lambda N, widths, percent: widths[0] // 2), "int64 vectors alone"),
        (
            smaller(work=lambda N, widths, percent: percent * widths[1] // 100),
            "next layer only",
        ),
        (
            smaller(work=lambda N, widths, percent: percent * work_of(widths) // widths[0]),
            "hundredths",
        ),
        (smaller(work=lambda *given: by_work(*given) * given[0]), "N cancels"),
        (smaller(work=lambda *given: by_work(*given) // given[0]), "N cancels"),
        (smaller(memory=lambda *given: by_memory(*given) // given[0]), "N cancels"),
        (lambda *given: smaller()(*given) - 1, "One more fits"),
        (lambda *given: smaller()(*given) + 1, "One too many"),
        (
            lambda N, widths, percent: min(
                widths[0] // 3, -(-percent * work_of(widths) // (100 * widths[0])) - 1
            ),
            "One more fits",
        ),
        (
            lambda N, widths, percent: min(
                widths[0] / 3, percent * work_of(widths) / (100 * widths[0])
            ),
            "a whole one",
        ),
        (
            lambda N, widths, percent: min(
                widths[0] // 3, percent * sum(widths) // (100 * widths[0])
            ),
            "operations|allowed",
        ),
        (lambda N, widths, percent: 999, "allowed"),
        (eats_the_list, "changed the list"),
        (lambda N, widths, percent: (85, 64), "should be a number"),
    ],
    "one_hot_equivalence.places": [
        (lambda ids, V: ids.argsort(), "one place for each|stands nowhere"),
        (places_of_permutations, "stands nowhere"),
        (lambda ids, V: filled(ids, V, start=0), "stands nowhere"),
        (first_places, "stands nowhere"),
        (lambda ids, V: filled(ids, int(ids.max()) + 1), "raised|one place for each"),
        (lambda ids, V: filled(ids, V).float(), "whole numbers"),
        (lambda ids, V: filled(ids, V) >= 0, "whole numbers"),
        (lambda ids, V: ids.bincount(minlength=V), "how often|stands nowhere"),
        (counts_or_nothing, "how often|ids.back"),
        (ids_or_nothing, "the ids themselves|ids.back"),
        (lambda ids, V: filled(ids, V) - len(ids), "does stand there|stands nowhere"),
        (lambda ids, V: filled(ids.flip(0), V), "ids.back"),
        (lambda ids, V: [p for p in by_a_list(ids, V) if p >= 0], "one place for each"),
        (marks_and_puts_back, "wrote into"),
        (lambda ids, V: "nowhere", "Return a tensor"),
    ],
    "one_hot_equivalence.hard_look_up": [
        (lambda logits, E: E[logits.argmax(-1)], "argmax has no gradient"),
        (lambda logits, E: torch.softmax(logits, -1) @ E, "value is the mixture's"),
        (the_other_way_round, "value is the mixture's"),
        (added, "Both are added"),
        (wrong_sign, "A sign"),
        (lambda logits, E: E[logits.argmin(-1)], "smallest"),
        (lambda logits, E: logits @ E, "no weights"),
        (over_the_batch, "dim=-1"),
        (overflows, "NaN|another gradient"),
        (lambda logits, E: E[logits.argmax(-1)].detach(), "the logits"),
        (without_the_table, "the table"),
        (half_of_the_gradient, "another gradient"),
        (from_the_sigmoid, "another gradient"),
        (lambda logits, E: F.gumbel_softmax(logits, hard=True) @ E, "not the rows|another"),
        (lambda logits, E: through(*rows_and_mixture(logits.float(), E.float())), "dtype"),
    ],
}

RIGHT = {
    "one_hot_equivalence.as_table": [
        by_the_stack,
        by_copying,
        by_columns,
        through_numpy,
        a_subclass,
    ],
    "one_hot_equivalence.largest_vocabulary": [
        smaller(),
        by_trying,
        by_tensors,
        by_numpy,
        by_fractions,
    ],
    "one_hot_equivalence.places": [
        filled,
        by_the_matrix,
        by_a_list,
        by_a_dictionary,
        in_a_tuple,
    ],
    "one_hot_equivalence.hard_look_up": [
        by_one_hot_weights,
        by_three_terms,
        one_by_one,
        by_a_function_of_its_own,
    ],
}
