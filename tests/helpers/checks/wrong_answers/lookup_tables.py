"""Lesson 01: wrong answers that readers give, and a part of the hint that each should get."""

import math
from functools import partial

import torch
from torch import nn


def to_dense_ids(raw):
    customers, ids = torch.unique(raw, return_inverse=True)
    return ids, len(customers)


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


def mean_of_words(table, ids, pad, divide):
    mask = (ids != pad).unsqueeze(-1)
    return (table(ids) * mask).sum(dim=1) / divide(mask)


def writes_zeros(table, ids, pad):
    table.weight[pad] = 0
    return table(ids).sum(dim=1) / (ids != pad).sum(dim=1, keepdim=True)


WRONG = {
    "lookup_tables.look_up": [
        (
            lambda ids, weight: weight.index_select(0, ids.flatten()).reshape(*ids.shape, -1),
            "until a batch is empty",
        ),
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
        (partial(mean_of_words, divide=lambda mask: mask.sum()), "whole batch"),
        (partial(mean_of_words, divide=lambda mask: mask.sum(dim=(1, 2))), "last axis"),
        (writes_zeros, "wrote into the table"),
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
}
