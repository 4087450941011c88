"""Lesson 04: wrong answers that readers give, and a part of the hint that each should get."""

from functools import partial

import torch
from torch import nn
from wrong_answers.backprop_through_embeddings import added

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


def textbook(weight, m, v, t, indices, values):
    """Adam as the paper writes it: 1e-8 is added to the corrected root."""
    rows, g = distinct_sums(indices, values)
    m[rows] = 0.9 * m[rows] + 0.1 * g
    v[rows] = 0.999 * v[rows] + 0.001 * g**2
    root = (v[rows] / (1 - 0.999**t)).sqrt() + 1e-8
    weight[rows] -= 0.01 * m[rows] / (1 - 0.9**t) / root


def new_names(weight, m, v, t, indices, values):
    m, v = m.clone(), v.clone()
    lazy_step(weight, m, v, t, indices, values)


WRONG = {
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
        # From PyTorch 2.14 on this is right.
        *[(nn.utils.get_total_norm, "knows sparse tensors")][: torch.__version__ < "2.14"],
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
        (textbook, "before any correction"),
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
}
