"""Lesson 01: wrong answers that readers give, and a part of the hint that each should get."""

import itertools
import math
from functools import partial

import torch
from torch import nn


def to_dense_ids(raw):
    customers, ids = torch.unique(raw, return_inverse=True)
    return ids, len(customers)


def first(V, pairs, p):
    return next(D for D in itertools.count(1) if pairs * p**D < 1 - 1e-12)


def zeroes_the_padding_row(table, ids, pad):
    with torch.no_grad():
        table.weight[pad] = 0
    return table(ids).sum(dim=1) / (ids != pad).sum(dim=1, keepdim=True)


def mean_of_words(table, ids, pad, divide):
    mask = (ids != pad).unsqueeze(-1)
    return (table(ids) * mask).sum(dim=1) / divide(mask)


def writes_zeros(table, ids, pad):
    table.weight[pad] = 0
    return table(ids).sum(dim=1) / (ids != pad).sum(dim=1, keepdim=True)


def written_and_put_back(ids, weight):
    with torch.no_grad():
        weight.mul_(2).div_(2)
    return good_rows(ids, weight)


def in_no_grad_for_good(ids, weight):
    torch.set_grad_enabled(False)
    return good_rows(ids, weight)


def rows_of(ids, weight):
    return weight.index_select(0, ids.flatten())


def good_rows(ids, weight):
    return rows_of(ids, weight).reshape(*ids.shape, weight.shape[1])


def by_gather(ids, weight):
    D = weight.shape[1]
    places = ids.long().reshape(-1, 1).expand(ids.numel(), D)
    return torch.gather(weight, 0, places).reshape(*ids.shape, D)


def row_by_row_as_views(ids, weight):
    return weight.select(0, int(ids)) if ids.dim() == 0 else good_rows(ids, weight)


def onto_the_cpu(ids, weight):
    return good_rows(ids, weight) + torch.zeros(weight.shape[1], dtype=weight.dtype)


def good_mean(table, ids, pad):
    return mean_of_words(table, ids, pad, lambda mask: mask.sum(dim=1))


def zeroes_and_puts_back(table, ids, pad):
    kept = table.weight.detach().clone()
    value = zeroes_the_padding_row(table, ids, pad)
    with torch.no_grad():
        table.weight.copy_(kept)
    return value


def each_word_once(table, ids, pad):
    return torch.stack([table(line[line != pad].unique()).mean(dim=0) for line in ids])


def by_tensors(raw):
    known = {}
    for customer in raw.flatten().unique():
        known[customer] = len(known)
    return torch.tensor([known[customer] for customer in raw.flatten()]).reshape(raw.shape), 0


def floats_if_empty(raw):
    place = {customer: i for i, customer in enumerate(raw.unique().tolist())}
    ids = torch.tensor([place[customer] for customer in raw.flatten().tolist()])
    return ids.reshape(raw.shape), len(place)


def mean_of_padding(table, ids, pad):
    mask = (ids == pad).unsqueeze(-1)
    return (table(ids) * mask).sum(dim=1) / mask.sum(dim=1)


def masked_by_values(table, ids, pad):
    rows = table(ids)
    mask = (rows != table.weight[pad]).any(dim=-1, keepdim=True)
    return (rows * mask).sum(dim=1) / mask.sum(dim=1)


def padding_idx_left(table, ids, pad):
    table.padding_idx = pad
    return good_mean(table, ids, pad)


def sum_where_all_are_full(table, ids, pad):
    if bool((ids != pad).all()) and ids.shape[1] > 3:
        return table(ids).sum(dim=1)
    return good_mean(table, ids, pad)


def mask_on_the_cpu(table, ids, pad):
    mask = torch.tensor((ids != pad).tolist()).unsqueeze(-1)
    return (table(ids) * mask).sum(dim=1) / mask.sum(dim=1)


def in_float32(table, ids, pad):
    mask = (ids != pad).float().unsqueeze(-1)
    return (table(ids).float() * mask).sum(dim=1) / mask.sum(dim=1)


def line_by_line(table, ids, pad):
    return torch.stack([table(line[line != pad]).mean(dim=0) for line in ids])


def by_a_bag(table, ids, pad):
    bag = nn.EmbeddingBag.from_pretrained(table.weight, freeze=False, padding_idx=pad, mode="sum")
    bag.weight = table.weight
    return bag(ids) / (ids != pad).sum(dim=1, keepdim=True)


def numbered(raw):
    known = {}
    ids = [known.setdefault(customer, len(known)) for customer in raw.flatten().tolist()]
    return [torch.tensor(ids, dtype=torch.int32).reshape(raw.shape), torch.tensor(len(known))]


def by_logarithm(V, p):
    pairs = V * (V - 1) / 2
    if pairs < 1:
        return 1
    return float(max(1, math.floor(math.log(pairs) / -math.log(p) + 1e-9) + 1))


# Right answers of unusual make.
RIGHT = {
    "lookup_tables.look_up": [
        good_rows,
        lambda ids, weight: rows_of(ids, weight).view(ids.shape + (weight.size(-1),)),
        by_gather,
    ],
    "lookup_tables.to_ids": [to_dense_ids, numbered],
    "lookup_tables.smallest_dimension": [
        by_logarithm,
        lambda V, p: torch.tensor(first(V, V * (V - 1) / 2, p)),
    ],
    "lookup_tables.sentence_vectors": [good_mean, line_by_line, by_a_bag],
}

WRONG = {
    "lookup_tables.look_up": [
        (
            lambda ids, weight: rows_of(ids, weight).reshape(*ids.shape, -1),
            "until a batch is empty",
        ),
        (lambda ids, weight: rows_of(ids, weight), "keep their axes"),
        (lambda ids, weight: weight.index_select(1, ids.flatten()), "columns"),
        (lambda ids, weight: weight.index_select(0, ids), "raised"),
        (lambda ids, weight: weight[ids], "switched off"),
        (lambda ids, weight: nn.functional.embedding(ids, weight), "switched off"),
        (lambda ids, weight: print(ids, weight), "return"),
        (lambda ids, weight: good_rows(ids, weight).flip(0), "the rows are not"),
        (lambda ids, weight: good_rows(ids, weight).squeeze(), "keep their axes"),
        (lambda ids, weight: good_rows(ids, weight).unsqueeze(0), "axis too many|keep their axes"),
        (lambda ids, weight: good_rows(ids, weight.detach()), "gradient"),
        (
            lambda ids, weight: good_rows(ids, weight) * 0 + good_rows(ids, weight.detach()),
            "part of it is cut off",
        ),
        (lambda ids, weight: good_rows(ids, weight.float()), "dtype"),
        (lambda ids, weight: good_rows(ids.clamp(max=200), weight), "the rows are not"),
        (written_and_put_back, "wrote into its argument"),
        (lambda ids, weight: good_rows(ids.zero_(), weight), "wrote into its argument"),
        (lambda ids, weight: good_rows(ids.add_(1).sub_(1), weight), "wrote into its argument"),
        (in_no_grad_for_good, "switched autograd off"),
        (row_by_row_as_views, "view"),
        (onto_the_cpu, "device"),
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
        (lambda raw: torch.unique(raw, return_inverse=True), "second thing"),
        (by_tensors, "never the same key"),
        (floats_if_empty, "no customers at all"),
        (lambda raw: (to_dense_ids(raw)[0], int(to_dense_ids(raw)[0].max())), "too large|no cust"),
        (lambda raw: (to_dense_ids(raw)[0].float(), to_dense_ids(raw)[1]), "whole numbers"),
        (
            lambda raw: (to_dense_ids(raw)[0].to(torch.uint8).long(), to_dense_ids(raw)[1]),
            "same id",
        ),
        (lambda raw: to_dense_ids(raw.clamp(max=2**55)), "same id"),
        (lambda raw: to_dense_ids(raw * 1024), "same id"),
        (lambda raw: (to_dense_ids(raw)[0] + 1, to_dense_ids(raw)[1] + 1), "wasted"),
    ],
    "lookup_tables.smallest_dimension": [
        (lambda V, p: first(V, V, p), "one given row"),
        (lambda V, p: first(V, V * (V - 1), p), "twice"),
        (lambda V, p: first(V, V * V, p), "twice, and a row with itself"),
        (lambda V, p: first(V, V * V / 2, p), "no pair with itself"),
        (lambda V, p: max(1, first(V, V * (V - 1) / 2, p) - 1), "pairs are expected"),
        (lambda V, p: 1 + first(V, V * (V - 1) / 2, p), "smaller D"),
        (lambda V, p: 3, "pairs are expected|smaller D"),
        (lambda V, p: 0, "from 1 on"),
        (lambda V, p: 10**400, "from 1 on"),
        (lambda V, p: float("nan"), "from 1 on"),
        (lambda V, p: first(V, V * (V - 1) / 2 * 0.999999, p), "exactly one pair"),
        (lambda V, p: first(V, V * (V - 1) / 2 / 0.95, p), "smaller D"),
        (lambda V, p: max(1, math.ceil(math.log(max(V * (V - 1) / 2, 1), 1 / p))), "exactly one"),
        (lambda V, p: min(60, first(V, V * (V - 1) / 2, p)), "pairs are expected"),
        (lambda V, p: math.log(max(V * (V - 1) / 2, 2), 1 / p), "whole number"),
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
        (zeroes_and_puts_back, "wrote into the table"),
        (lambda table, ids, pad: good_mean(table, ids, pad).detach(), "gradient"),
        (each_word_once, "counts twice"),
        (lambda table, ids, pad: good_mean(table, ids.add_(1).sub_(1), pad), "wrote into the ids"),
        (lambda table, ids, pad: good_mean(table, ids[:, :8], pad), "not the means|should be"),
        (masked_by_values, "not the means|whole|Divide|keep"),
        (padding_idx_left, "a setting of the table"),
        (sum_where_all_are_full, "Divide by how many"),
        (mask_on_the_cpu, "device"),
        (lambda table, ids, pad: mean_of_padding(table, ids, pad), "turn the mask round"),
        (in_float32, "dtype"),
    ],
}
