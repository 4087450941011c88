"""Every exercise: right when solved, not attempted as it stands, wrong with a fitting hint."""

import importlib
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import checks, lessons

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def function(backward: Callable, forward: Callable = lambda ids, weight: weight[ids]) -> type:
    """An autograd.Function for exercise 2 of lesson 03, from its backward(ids, G, V, pad)."""

    class Answer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, ids, weight, pad):
            ctx.save_for_backward(ids)
            ctx.V, ctx.pad = weight.shape[0], pad
            return forward(ids, weight)

        @staticmethod
        def backward(ctx, G):
            (ids,) = ctx.saved_tensors
            return None, backward(ids, G, ctx.V, ctx.pad), None

    return Answer


def added(ids, G, V):
    return G.new_zeros(V, G.shape[-1]).index_add_(0, ids.flatten(), G.flatten(end_dim=-2))


def assigned(ids, G, V):
    dE = G.new_zeros(V, G.shape[-1])
    dE[ids] = G
    return dE


def overwrites_g(ids, G, V, pad):
    G[ids == pad] = 0
    return added(ids, G, V)


def forgets_repeats(ids, G, V, pad):
    dE = assigned(ids, G, V)
    dE[pad] = 0
    return dE


def to_dense_ids(raw):
    customers, ids = torch.unique(raw, return_inverse=True)
    return ids, len(customers)


def spoils_the_weight(ids, weight):
    weight[3] = 0
    return weight[ids]


def alias(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.T)
    return linear


def contiguous(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.T.contiguous())  # no copy where D is 1
    return linear


def reshaped(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.detach().clone().reshape(linear.weight.shape))
    return linear


def zeroes_the_table(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.detach().T.clone())
    with torch.no_grad():
        embedding.weight.zero_()
    return linear


def untransposed_copy(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    with torch.no_grad():
        return linear.weight.copy_(embedding.weight)


def not_a_parameter(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    del linear.weight
    linear.weight = embedding.weight.T.clone()
    return linear


def with_bias(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim)
    linear.weight = nn.Parameter(embedding.weight.detach().T.clone())
    return linear


def untransposed(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.detach().clone())
    return linear


def frozen(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.weight = nn.Parameter(embedding.weight.detach().T.clone(), requires_grad=False)
    return linear


def first(V, pairs, p):
    return next(D for D in range(1, 1000) if pairs * p**D < 1)


def shortened_in_place(weight, ids, max_norm):
    nn.Embedding.from_pretrained(weight, max_norm=max_norm)(ids)
    return weight


def stretched(weight, ids, max_norm):
    weight = weight.clone()
    weight[ids.unique()] *= max_norm / weight[ids.unique()].norm(dim=1, keepdim=True)
    return weight


def zeroes_the_padding_row(table, ids, pad):
    with torch.no_grad():
        table.weight[pad] = 0
    return table(ids).sum(dim=1) / (ids != pad).sum(dim=1, keepdim=True)


def shortened_everywhere(weight, ids, max_norm):
    return weight * (max_norm / weight.norm(dim=1, keepdim=True)).clamp(max=1)


SETS = {
    "SGD": {2, 3},
    "SGD(momentum=0.9)": {1, 2, 3},
    "SGD(weight_decay=0.1)": {0, 1, 2, 3, 4, 5},
    "Adam": {1, 2, 3},
    "AdamW": {0, 1, 2, 3, 4, 5},
}

STORED = {
    "as it comes": 6,
    "coalesced": 3,
    "padding_idx=4, as it comes": 3,
    "padding_idx=4, coalesced": 2,
    "bytes": 240,
}
OUTCOME = {
    "SGD": "same",
    "SGD(momentum=0.9)": "same",
    "SGD(weight_decay=0.1)": "refused",
    "Adagrad": "same",
    "AdamW": "refused",
    "Adam for dense, SparseAdam for sparse": "other",
}


def distinct_sums(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    return rows, values.new_zeros(len(rows), values.shape[1]).index_add_(0, place, values)


def keeps_one(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    sums = values.new_zeros(len(rows), values.shape[1])
    sums[place] = values
    return rows, sums


def means(indices, values):
    rows, sums = distinct_sums(indices, values)
    return rows, sums / (indices == rows.unsqueeze(1)).sum(dim=1, keepdim=True)


def neighbours_only(indices, values):
    rows, place = torch.unique_consecutive(indices, return_inverse=True)
    return rows, values.new_zeros(len(rows), values.shape[1]).index_add_(0, place, values)


def without_zeros(indices, values):
    rows, sums = distinct_sums(indices, values)
    return rows[sums.any(dim=1)], sums[sums.any(dim=1)]


def in_float32(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    return rows, torch.zeros(len(rows), values.shape[1]).index_add_(0, place, values)


def rounded_to_float32(indices, values):
    return distinct_sums(indices, values.float())


def in_order_of_appearance(indices, values):
    rows = torch.tensor(list(dict.fromkeys(indices.tolist())))
    return rows, torch.stack([values[indices == row].sum(dim=0) for row in rows])


def sums_in_order_of_appearance(indices, values):
    return indices.unique(), in_order_of_appearance(indices, values)[1]


def of_the_table(indices, values):
    whole = torch.zeros(int(indices.max()) + 1, values.shape[1]).index_add_(0, indices, values)
    return indices.unique(), whole[indices.unique()]


def loose_norm(gradients):
    numbers = [g._values() if g.is_sparse else g for g in gradients]
    return torch.stack([n.norm() for n in numbers]).norm()


def tidy_norm(gradients):
    return torch.stack([(g.coalesce().values() if g.is_sparse else g).norm() for g in gradients])


def dense_norm(gradients):
    return torch.cat([g.to_dense().flatten() for g in gradients]).norm()


def clips_as_well(gradients):
    norm = torch.stack([g.norm() for g in gradients]).norm()
    for g in gradients:
        g.mul_(0.5)
    return norm


def coalesces_in_the_list(gradients):
    for i, g in enumerate(gradients):
        gradients[i] = g.coalesce() if g.is_sparse else g
    return loose_norm(gradients)


def lazy_step(
    weight,
    m,
    v,
    t,
    indices,
    values,
    squared=None,
    corrected=True,
    sign=1,
    copy=False,
    late=0,
    epsilon=1e-8,
    inside=0,
    only=None,
):
    """SparseAdam's step of exercise 4 of lesson 04, with its mistakes to choose from."""
    rows, g = distinct_sums(indices, values)
    squares = g**2 if squared is None else squared(indices, values)
    if only is not None:  # the numbers to update, from g; the rest stay
        at = only(g).expand(g.shape)
        rows, columns = rows.unsqueeze(1).expand(g.shape)[at], torch.where(at)[1]
        rows, g, squares = (rows, columns), g[at], squares[at]
    m[rows] = 0.9 * m[rows] + 0.1 * g
    v[rows] = 0.999 * v[rows] + 0.001 * squares
    t = t - late
    rate = sign * 0.01 * ((1 - 0.999**t) ** 0.5 / (1 - 0.9**t) if corrected else 1)
    target = weight.clone() if copy else weight
    target[rows] -= rate * m[rows] / ((v[rows] + inside).sqrt() + epsilon)
    return target


def not_lazy(weight, m, v, t, indices, values):
    g = added(indices, values, len(weight))
    m.mul_(0.9).add_(0.1 * g)
    v.mul_(0.999).add_(0.001 * g**2)
    weight -= 0.01 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + 1e-8)


def one_line_of_m(weight, m, v, t, indices, values):
    m[indices] = 0.9 * m[indices] + 0.1 * values
    v[indices] = 0.999 * v[indices] + 0.001 * values**2
    rate = 0.01 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
    weight[indices] -= rate * m[indices] / (v[indices].sqrt() + 1e-8)


def new_names(weight, m, v, t, indices, values):
    m, v = m.clone(), v.clone()
    lazy_step(weight, m, v, t, indices, values)


def evicted(slots, cache, sums, id_of, slot_of, weight, memory):
    """The right way to evict, exercise 3 of lesson 05, for wrong answers to leave out parts of."""
    ids = id_of[slots]
    weight[ids], memory[ids] = cache[slots], sums[slots]
    slot_of[ids] = -1
    id_of[slots] = -1


def forgets_first(slots, cache, sums, id_of, slot_of, weight, memory):
    id_of[slots] = -1
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)


def reads_too_late(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of[slots]
    weight[ids], memory[ids] = cache[slots], sums[slots]
    id_of[slots] = -1
    slot_of[id_of[slots]] = -1


def clears_the_sums(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    sums[slots] = 0


def spoils_the_slots(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    slots.zero_()


def keeps_the_sums(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory.clone())


def writes_nothing(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight.clone(), memory)


def by_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    weight[slots] = cache[slots]
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)


def keeps_the_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of.clone(), slot_of, weight, memory)


def keeps_the_entry(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of.clone(), weight, memory)


def clears_by_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    slot_of[slots] = -1


def flushes_all(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(id_of.ge(0).nonzero().flatten(), cache, sums, id_of, slot_of, weight, memory)


def placed(
    V,
    D,
    optimizer,
    gpu,
    host,
    sizes=(1, 2, 3),
    number=4,
    share=0.8,
    cached=0.8,
    known=("SGD", "Adagrad"),
):
    """Exercise 4 of lesson 05, with what wrong answers get wrong as arguments."""
    needed = (
        dict(zip(("SGD", "Adagrad", "SparseAdam"), sizes, strict=True))[optimizer] * V * D * number
    )
    if needed <= share * gpu:
        return "gpu"
    if needed <= host and needed / 20 <= cached * gpu and optimizer in known:
        return "cache"
    return "host" if needed <= host else "several machines"


# Wrong answers that readers give, and a part of the hint that each should get.
WRONG = {
    "start_here.numbers_in_the_table": [
        (13, "added"),
        (3, "one of the two sizes"),
        (31, "ten rows with three"),
        ("30", "should be a number"),
    ],
    "lookup_tables.look_up": [
        (lambda ids, weight: weight.index_select(0, ids.flatten()), "keep their axes"),
        (lambda ids, weight: weight[:, ids], "columns"),
        (lambda ids, weight: weight.index_select(0, ids), "raised"),
        (lambda ids, weight: print(weight[ids]), "return"),
        (lambda ids, weight: weight[ids].flip(0), "the rows are not"),
        (lambda ids, weight: weight[ids].squeeze(), "keep their axes"),
    ],
    "lookup_tables.to_ids": [
        (lambda raw: (raw, int(raw.max()) + 1), "negative|wasted"),
        (lambda raw: (raw - raw.min(), int(raw.max() - raw.min()) + 1), "wasted"),
        (lambda raw: (raw % 3, 3), "same id"),
        (lambda raw: to_dense_ids(raw.float()), "same id"),
        (lambda raw: to_dense_ids(raw.int()), "same id"),
        (lambda raw: to_dense_ids(raw.abs()), "same id"),
        (lambda raw: (torch.arange(raw.numel()).reshape(raw.shape), raw.numel()), "different ids"),
        (lambda raw: torch.unique(raw, return_inverse=True)[1], "pair"),
        (lambda raw: (torch.unique(raw), len(torch.unique(raw))), "shape"),
    ],
    "lookup_tables.smallest_dimension": [
        (lambda V, p: first(V, V, p), "one given row"),
        (lambda V, p: first(V, V * (V - 1), p), "twice"),
        (lambda V, p: first(V, V * (V - 1) / 2, p) - 1, "pairs are expected"),
        (lambda V, p: 1 + first(V, V * (V - 1) / 2, p), "smaller D"),
        (lambda V, p: 0, "from 1 on"),
        (lambda V, p: first(V, V * (V - 1) / 2 * 0.999999, p), "exactly one pair"),
        (lambda V, p: math.log(V * (V - 1) / 2, 1 / p), "whole number"),
    ],
    "lookup_tables.sentence_vectors": [
        (lambda table, ids, pad: table(ids).mean(dim=1), "padding row is in your mean"),
        (
            lambda table, ids, pad: (table(ids) * (ids != pad).unsqueeze(-1)).mean(dim=1),
            "length of the rectangle",
        ),
        (
            lambda table, ids, pad: (table(ids) * (ids != pad).unsqueeze(-1)).sum(dim=1),
            "Divide by how many",
        ),
        (
            lambda table, ids, pad: (
                (table(ids) * (ids != 0).unsqueeze(-1)).sum(1) / (ids != 0).sum(1, keepdim=True)
            ),
            "argument pad",
        ),
        (zeroes_the_padding_row, "wrote into the table"),
    ],
    "lookup_tables.after_look_up": [
        (lambda weight, ids, max_norm: weight, "before"),
        (shortened_everywhere, "every long row"),
        (stretched, "NaN"),
        (shortened_in_place, "you changed the weight"),
        (lambda weight, ids, max_norm: weight.clamp(-max_norm, max_norm), "single numbers"),
        (lambda weight, ids, max_norm: shortened_everywhere(weight, ids, 1.0), "factor"),
        (lambda weight, ids, max_norm: stretched(weight, ids[ids != 7], max_norm), "stretched"),
    ],
    "one_hot_equivalence.one_hot": [
        (lambda ids, V: F.one_hot(ids).float(), "count classes"),
        (lambda ids, V: F.one_hot(ids, V), "float32"),
        (lambda ids, V: torch.eye(V)[ids].flip(-1), "wrong places"),
        (lambda ids, V: (ids == torch.arange(V)).float(), "unsqueeze"),
        (lambda ids, V: torch.eye(V)[ids].mul_(1 + ids.zero_().sum()), "wrote into"),
        (lambda ids, V: torch.zeros(len(ids), V).scatter_(1, ids.unsqueeze(1), 1.0), "raised"),
    ],
    "one_hot_equivalence.as_linear": [
        (alias, "share memory"),
        (with_bias, "bias"),
        (untransposed, "transpose"),
        (frozen, "frozen"),
        (lambda embedding: embedding, "nn.Linear"),
        (contiguous, "share memory"),
        (reshaped, "reshape"),
        (zeroes_the_table, "changed the embedding"),
        (untransposed_copy, "transpose"),
        (not_a_parameter, "nn.Parameter"),
    ],
    "one_hot_equivalence.is_permutation": [
        (lambda ids, V: len(ids) == V, "repeats"),
        (lambda ids, V: len(ids.unique()) == len(ids), "left out"),
        (lambda ids, V: len(ids.unique()) == V, "twice"),
        (lambda ids, V: bool((ids.bincount() == 1).all()), "last row is left out"),
        (lambda ids, V: len(ids) == V and int(ids.sum()) == V * (V - 1) // 2, "repeats"),
        (lambda ids, V: sorted(ids.tolist()) == list(range(V)) != ids.tolist(), "old order"),
        (
            lambda ids, V: len(ids) == V and int(ids.pow(2).sum()) == sum(n * n for n in range(V)),
            "you say|repeats",
        ),
        (lambda ids, V: "yes", "True or False"),
    ],
    "one_hot_equivalence.one_hot_bytes": [
        (lambda batch, length, V: batch * length * V * 4, "float32"),
        (lambda batch, length, V: batch * length * V, "number of numbers"),
        (lambda batch, length, V: batch * length * 8, "bytes of the ids"),
        (lambda batch, length, V: batch * V * 8, "length"),
    ],
    "one_hot_equivalence.soft_look_up": [
        (lambda logits, E: E[logits.argmax(-1)], "best row alone"),
        (lambda logits, E: logits @ E, "no weights"),
        (lambda logits, E: torch.softmax(logits, dim=0) @ E, "dim=-1"),
        (lambda logits, E: (torch.softmax(logits, dim=-1) @ E).detach(), "cut off"),
        (lambda logits, E: logits.exp() @ E, "add up to 1"),
    ],
    "backprop_through_embeddings.table_gradient": [
        (assigned, "keeps one of its lines"),
        (
            lambda ids, G, V: (
                added(ids, G, V) / ids.bincount(minlength=V).clamp(min=1).unsqueeze(1)
            ),
            "averaged",
        ),
        (lambda ids, G, V: added(ids, G, int(ids.max()) + 1), "shape"),
        (lambda ids, G, V: added(ids, G, V) + 0 * G.zero_().sum(), "wrote into"),
    ],
    "backprop_through_embeddings.padded_look_up": [
        (function(lambda ids, G, V, pad: added(ids, G, V)), "padding row has a gradient"),
        (function(overwrites_g), "wrote into G"),
        (function(forgets_repeats), "keeps one of its lines"),
        (
            function(
                lambda ids, G, V, pad: added(ids[ids != pad], G[ids != pad], V),
                forward=lambda ids, weight: weight[ids] * 0,
            ),
            "plain rows",
        ),
        (lambda ids, weight, pad: weight[ids], "autograd.Function"),
        (function(lambda ids, G, V, pad: None), "None for the weight"),
        (
            function(
                lambda ids, G, V, pad: added(ids[ids != pad], G[ids != pad].float(), V).to(G.dtype)
            ),
            "float32's digits",
        ),
        (
            function(
                lambda ids, G, V, pad: added(ids[ids != pad], G[ids != pad], V),
                forward=spoils_the_weight,
            ),
            "wrote into the weight",
        ),
    ],
    "backprop_through_embeddings.second_step": [
        (SETS | {"SGD": {1, 2, 3}}, "does this optimizer remember"),
        (SETS | {"Adam": {2, 3}}, "forgotten"),
        (SETS | {"AdamW": {1, 2, 3}}, "pulls on all"),
        (SETS | {"Adam": {0, 1, 2, 3, 4, 5}}, "fewer"),
        (SETS | {"Adam": ...}, "filled in: Adam"),
        (SETS | {"SGD": 2}, "a set of rows"),
        (SETS | {"SGD": {3, 4}}, "second batch"),
        (SETS | {"AdamW": {1, 2, 3, 4, 5, 6}}, "0 to 5"),
        (SETS | {"SGD(weight_decay=0.1)": {2, 3}}, "pulls on all"),
    ],
    "backprop_through_embeddings.tied_gradient": [
        (lambda ids, S, E: S.T @ E[ids], "look-up's term is missing"),
        (lambda ids, S, E: added(ids, S @ E, len(E)), "scores' term is missing"),
        (lambda ids, S, E: S.T @ E[ids] + assigned(ids, S @ E, len(E)), "keeps one line"),
    ],
    "sparse_gradients.stored": [
        (STORED | {"as it comes": 3}, "not added up yet"),
        (STORED | {"coalesced": 6}, "repeats are still"),
        (STORED | {"padding_idx=4, as it comes": 6}, "lines of id 4"),
        (STORED | {"padding_idx=4, coalesced": 3}, "repeats are still|lines of id 4"),
        (STORED | {"as it comes": 1000}, "whatever V and D"),
        (STORED | {"bytes": 192}, "indices take room"),
        (STORED | {"bytes": 120}, "not coalesced yet"),
        (STORED | {"bytes": 32_000}, "dense"),
        (STORED | {"bytes": "240"}, "should be a number"),
        (STORED | {"coalesced": ...}, 'filled in: "coalesced"'),
        (STORED | {"coalesced": 4}, "different ids"),
        (STORED | {"coalesced": 2}, "different ids"),
        (STORED | {"as it comes": 5}, "places"),
        (STORED | {"padding_idx=4, coalesced": 4}, "strike out"),
    ],
    "sparse_gradients.merged": [
        (keeps_one, "keeps one of its lines"),
        (means, "averaged"),
        (lambda indices, values: (indices, values), "twice"),
        (in_order_of_appearance, "rising order"),
        (sums_in_order_of_appearance, "own row's place"),
        (of_the_table, "size of the table"),
        (lambda indices, values: distinct_sums(indices, values)[1], "pair"),
        (lambda indices, values: distinct_sums(indices, values.zero_()), "wrote into"),
        (lambda indices, values: (indices.unique() + 1, values), "distinct rows"),
        (neighbours_only, "neighbours only"),
        (lambda i, x: (i.unique(return_inverse=True)[1], distinct_sums(i, x)[1]), "not the rows"),
        (without_zeros, "stays, with zeros"),
        (in_float32, "any dtype"),
        (rounded_to_float32, "torch.float64 is wanted"),
    ],
    "sparse_gradients.total_norm": [
        (loose_norm, "squared one by one"),
        (lambda gradients: sum(g.norm() for g in gradients), "do not add up"),
        (lambda gradients: sum(g.norm() ** 2 for g in gradients), "square of the norm"),
        (lambda gradients: max(g.norm() for g in gradients), "one of the gradients"),
        (clips_as_well, "changed a gradient"),
        (lambda gradients: nn.utils.get_total_norm(gradients), "knows sparse tensors"),
        (lambda gradients: torch.stack([g.norm() for g in gradients]).norm().item(), "a tensor"),
        (lambda gradients: tidy_norm(gradients).reshape(1), "shape"),
        (dense_norm, "size of the table"),
        (coalesces_in_the_list, "changed the list"),
        (lambda gradients: nn.utils.clip_grad_norm_(gradients, 1.0), "reads .grad"),
        (lambda gradients: 1 / 0, "Given a list of 2 tensors, your"),
    ],
    "sparse_gradients.lazy_adam": [
        (not_lazy, "not in the batch"),
        (one_line_of_m, "Add its lines up"),
        (partial(lazy_step, squared=lambda i, x: distinct_sums(i, x**2)[1]), "then square"),
        (partial(lazy_step, squared=lambda i, x: distinct_sums(i, x)[1]), "0.001 g²"),
        (partial(lazy_step, corrected=False), "correction by t"),
        (partial(lazy_step, sign=-1), "sign"),
        (partial(lazy_step, copy=True), "weight has not changed"),
        (new_names, "m has not changed"),
        (lambda weight, m, v, t, indices, values: weight[99], "Given a tensor .* raised"),
        (partial(lazy_step, late=1), "take it as it is given"),
        (lambda w, m, v, t, i, x: lazy_step(w, m, v, t, i, x, late=int(t > 1)), "for t = 1,"),
        (partial(lazy_step, late=-1), "for t = 2,"),
        (partial(lazy_step, only=lambda g: g != 0), "left out"),
        (partial(lazy_step, only=lambda g: g.any(dim=1, keepdim=True)), "left out"),
        (partial(lazy_step, epsilon=0), "is no number"),
        (partial(lazy_step, epsilon=1e-6), "v is tiny"),
        (partial(lazy_step, epsilon=0, inside=1e-8), "after the root"),
        (
            lambda weight, m, v, t, indices, values: lazy_step(
                weight, m, v, t, indices, values.mul_(2)
            ),
            "wrote into",
        ),
    ],
    "sparse_gradients.outcome": [
        (OUTCOME | {"SGD": "other"}, "same rows"),
        (OUTCOME | {"SGD(momentum=0.9)": "other"}, "remembers the absent"),
        (OUTCOME | {"SGD(momentum=0.9)": "refused"}, "it steps"),
        (OUTCOME | {"SGD(weight_decay=0.1)": "other"}, "fills in the zeros"),
        (OUTCOME | {"Adagrad": "other"}, "sum of squares"),
        (OUTCOME | {"AdamW": "same"}, "raises an error. See"),
        (OUTCOME | {"Adam for dense, SparseAdam for sparse": "same"}, "becomes of m"),
        (OUTCOME | {"AdamW": "no"}, "refused"),
        (OUTCOME | {"SGD": ...}, 'filled in: "SGD"'),
    ],
    "cpu_offloaded_tables.crossing": [
        (
            lambda ids, D: (ids.numel() * D * 4, ids.numel() * D * 4),
            "Each distinct row crosses once",
        ),
        (lambda ids, D: (len(ids.unique()) * D * 4,) * 2, "places must cross"),
        (
            lambda ids, D: (len(ids.unique()) * (4 * D + 8), len(ids.unique()) * D * 4),
            "repeats included",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 8 * len(ids), len(ids.unique()) * D * 4),
            "any shape",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 8 * ids.numel(), ids.numel() * D * 4),
            "added up",
        ),
        (lambda ids, D: (len(ids.unique()) * D * 4 + 8 * ids.numel(),) * 2, "no gradient"),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 4 * ids.numel(), len(ids.unique()) * D * 4),
            "int64",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D + 8 * ids.numel(), len(ids.unique()) * D),
            "4 bytes",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4, len(ids.unique()) * D * 4 + 8 * ids.numel()),
            "exchanged",
        ),
        (lambda ids, D: len(ids.unique()) * D * 4, "Two numbers"),
    ],
    "cpu_offloaded_tables.ahead_of": [
        (lambda f, r, q: f.unique(), "running batch"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), r)], "queued batch"),
        (lambda f, r, q: f.unique()[torch.isin(f.unique(), torch.cat([r, q]))], "running batch"),
        (lambda f, r, q: f[~torch.isin(f, torch.cat([r, q]))], "each once"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].flip(0), "sorted"),
        (
            lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].tolist(),
            "as list",
        ),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].float(), "int64"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))][1:], "missing"),
        (lambda f, r, q: torch.cat([f, r]).unique(), "running batch|not in the following"),
        (lambda f, r, q: ~torch.isin(f, torch.cat([r, q])), "yes and no"),
    ],
    "cpu_offloaded_tables.let_go": [
        (forgets_first, "Once `id_of` is cleared"),
        (reads_too_late, "ask `id_of` again"),
        (spoils_the_slots, "wrote into `slots`"),
        (clears_the_sums, "wrote into `sums`"),
        ("let_go", "A function is wanted"),
        (keeps_the_sums, "`memory`"),
        (writes_nothing, "`weight`"),
        (by_slot, "nobody let go"),
        (keeps_the_slot, "slots are taken"),
        (keeps_the_entry, "rows are in the cache"),
        (clears_by_slot, "rows that stay"),
        (flushes_all, "nobody let go"),
    ],
    "cpu_offloaded_tables.place": [
        (partial(placed, sizes=(1, 1, 1)), "keeps for each number"),
        (partial(placed, sizes=(2, 3, 4)), "you say"),
        (partial(placed, number=1), "4 bytes"),
        (partial(placed, number=8), "four bytes a number"),
        (partial(placed, share=1.0), "A fifth of the GPU"),
        (partial(placed, cached=1.0), "leave a fifth"),
        (partial(placed, known=("SGD", "Adagrad", "SparseAdam")), "SGD and Adagrad only"),
        (lambda V, D, optimizer, gpu, host: "CPU", "four answers"),
        (lambda *a: "host" if placed(*a) == "cache" else placed(*a), "twentieth of it fits|only"),
        (
            lambda V, D, o, gpu, host: (
                "cache" if placed(V, D, o, gpu, 9e99) == "cache" else placed(V, D, o, gpu, host)
            ),
            "room for all of it|Neither|only",
        ),
    ],
}


def check_named(name: str) -> Callable[[object], checks.Result]:
    module, exercise = name.split(".")
    return getattr(importlib.import_module(f"helpers.checks.{module}"), exercise)


def exercises() -> list[tuple[str, str, str]]:
    """(name, stub's code, solution's code) of every exercise of every notebook."""
    found = []
    for path in NOTEBOOKS:
        nb = lessons.read(path)
        source = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "code")
        module = re.search(r"from helpers\.checks import (\w+) as check", source)
        for exercise in lessons.exercises(nb):
            stub = nb.cells[exercise.stub].source
            check = re.search(r"check\.(\w+)\(\w+\)$", stub)
            found.append((f"{module[1]}.{check[1]}", stub, exercise.code))
    return found


EXERCISES = exercises()


def judged(name: str, code: str, call: str) -> checks.Result:
    """Run an answer's code and the last line of its stub, as a notebook does."""
    module, _ = name.split(".")
    names = {"torch": torch, "F": F, "nn": nn}
    names["check"] = importlib.import_module(f"helpers.checks.{module}")
    exec(code, names)
    return eval(call, names)


def test_every_exercise_has_wrong_answers() -> None:
    assert {name for name, _, _ in EXERCISES} == set(WRONG)
    assert all(len(answers) >= 2 for answers in WRONG.values())


@pytest.mark.parametrize(("name", "stub", "solution"), EXERCISES, ids=[e[0] for e in EXERCISES])
def test_stub_and_solution(name: str, stub: str, solution: str, capsys) -> None:
    *body, call = stub.splitlines()
    assert judged(name, "\n".join(body), call).state == checks.NOT_ATTEMPTED
    assert capsys.readouterr().out.startswith("Not attempted yet.")
    for _ in range(5):  # the inputs are fresh each time
        result = judged(name, solution, call)
        assert result.state == checks.RIGHT, result.hint
    assert capsys.readouterr().out.startswith("Right.")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_get_the_hint_that_fits(name: str, capsys) -> None:
    for answer, part in WRONG[name]:
        for _ in range(5):
            result = check_named(name)(answer)
            assert result.state == checks.WRONG, (answer, result)
            assert re.search(part, result.hint), (part, result.hint)
            assert capsys.readouterr().out.startswith("Not right yet.")


class Hostile:
    """An object that resists every question."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __hash__ = None


ODD = [
    None,
    "forty",
    True,
    float("nan"),
    [1, 2],
    {},
    {"SGD": {Hostile}},
    torch.ones(3),
    torch.ones(2, 3, dtype=torch.complex64),
    np.ones(3),
    nn.Linear,
    nn.Embedding(3, 2),
    Hostile(),
    lambda: 1,
    lambda *inputs: 1 / 0,
    lambda *inputs: exit(),
    lambda *inputs: "text",
    lambda *inputs: np.ones(3),
    lambda *inputs: torch.ones(1, dtype=torch.int8),
    lambda *inputs: torch.ones(2, 2).to_sparse(),
    lambda *inputs: torch.empty(3, device="meta"),
    lambda *inputs: Hostile(),
    lambda *inputs: [i.zero_() for i in inputs if isinstance(i, torch.Tensor)],
]


@pytest.mark.parametrize("name", WRONG)
def test_no_answer_makes_a_check_raise(name: str, capsys) -> None:
    for answer in ODD:
        state = torch.get_rng_state()
        result = check_named(name)(answer)
        assert result.state == checks.WRONG
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert torch.equal(torch.get_rng_state(), state)


def test_a_check_raises_when_the_environment_asks(monkeypatch) -> None:
    monkeypatch.setenv(checks.RAISE, "1")
    with pytest.raises(AssertionError, match="numbers_in_the_table: wrong"):
        check_named("start_here.numbers_in_the_table")(13)
    assert check_named("start_here.numbers_in_the_table")(30).state == checks.RIGHT


def test_an_endless_loop_ends(monkeypatch) -> None:
    def endless(V, p):
        while V:
            pass

    monkeypatch.setattr(checks, "SECONDS", 0.2)
    result = check_named("lookup_tables.smallest_dimension")(endless)
    assert result.state == checks.WRONG and "loop never end" in result.hint
    assert sys.gettrace() is None or "watch" not in repr(sys.gettrace())


def test_nothing_else_shows_under_the_cell(capsys) -> None:
    def noisy(V, p):
        print("noise")
        return V * p

    result = check_named("lookup_tables.smallest_dimension")(noisy)
    assert "noise" not in capsys.readouterr().out
    result._ipython_display_()
    assert capsys.readouterr().out == ""
