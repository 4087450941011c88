"""Lesson 04: wrong answers that readers give, and a part of the hint that each should get."""

import functools
import math

import numpy as np
import torch
from torch import nn

OUTCOME = {
    "SGD": "same",
    "SGD(momentum=0.9)": "same",
    "SGD(momentum=0.9, weight_decay=0.1)": "refused",
    "Adagrad": "same",
    "Adam, SparseAdam": "other",
    "Adam, SparseAdam, all ids in each batch": "same",
}


def distinct_sums(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    return rows, values.new_zeros(len(rows), values.shape[1]).index_add_(0, place, values)


def keeps_one(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    sums = values.new_zeros(len(rows), values.shape[1])
    sums[place] = values
    return rows, sums


def adds_in_brackets(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    sums = values.new_zeros(len(rows), values.shape[1])
    sums[place] += values
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


def on_the_cpu(indices, values):
    rows, place = torch.unique(indices, return_inverse=True)
    sums = torch.zeros(len(rows), values.shape[1], dtype=values.dtype)
    return rows, sums.index_add_(0, place, values)


def rounded_to_float32(indices, values):
    return distinct_sums(indices, values.float())


def through_float32(indices, values):
    rows, sums = distinct_sums(indices, values.float())
    return rows, sums.to(values.dtype)


def rows_in_int32(indices, values):
    rows, sums = distinct_sums(indices, values)
    return rows.int(), sums


def in_order_of_appearance(indices, values):
    rows = torch.tensor(list(dict.fromkeys(indices.tolist())), dtype=torch.int64)
    sums = [values[indices == row].sum(dim=0) for row in rows]
    return rows, torch.stack(sums) if sums else values


def sums_in_order_of_appearance(indices, values):
    return indices.unique(), in_order_of_appearance(indices, values)[1]


def of_the_table(indices, values):
    whole = torch.zeros(int(indices.max()) + 1, values.shape[1]).index_add_(0, indices, values)
    return indices.unique(), whole[indices.unique()]


def by_pytorch(indices, values):
    size = (int(indices.max()) + 1, values.shape[1])
    gradient = torch.sparse_coo_tensor(indices.unsqueeze(0), values, size).coalesce()
    return gradient.indices()[0], gradient.values()


def fails_when_empty(indices, values):
    rows = indices.unique()
    return rows, torch.stack([values[indices == row].sum(dim=0) for row in rows])


def fails_at_maximum(indices, values):
    assert indices.max() >= 0
    return distinct_sums(indices, values)


def through_float_ids(indices, values):
    rows, place = torch.unique(indices.float(), return_inverse=True)
    sums = values.new_zeros(len(rows), values.shape[1]).index_add_(0, place, values)
    return rows.long(), sums


def next_row(indices, values):
    """One too far, which at a million of millions is close."""
    rows, sums = distinct_sums(indices, values)
    return rows + (rows > 10**6), sums


def times_their_number(indices, values):
    rows, sums = distinct_sums(indices, values)
    return rows, sums * (indices == rows.unsqueeze(1)).sum(dim=1, keepdim=True)


def by_embedding(indices, values):
    """Right, as the gradient of a small dense look-up."""
    rows, place = torch.unique(indices, return_inverse=True)
    weight = values.new_zeros(len(rows), values.shape[1], requires_grad=True)
    nn.functional.embedding(place, weight).backward(values)
    return rows, weight.grad


def by_search_sorted(indices, values):
    """Right, with places found by halving."""
    rows = indices.unique()
    sums = values.new_zeros(len(rows), values.shape[1])
    return rows, sums.index_put((torch.searchsorted(rows, indices),), values, accumulate=True)


def by_comparison(indices, values):
    """Right, as a product of a 0-1 matrix with the values."""
    rows = indices.unique()
    member = (rows.unsqueeze(1) == indices.unsqueeze(0)).to(values.dtype)
    return [rows, member @ values]


def by_sorting(indices, values):
    """Right, line by line over the sorted list."""
    order = indices.argsort(stable=True)
    rows, counts = indices[order].unique_consecutive(return_counts=True)
    parts = values[order].split(counts.tolist()) if len(rows) else []
    sums = [part.sum(dim=0) for part in parts]
    return rows.long(), torch.stack(sums) if sums else values.clone()


def by_scatter(indices, values):
    rows, place = indices.unique(return_inverse=True)
    sums = torch.zeros_like(values)[: len(rows)]
    return rows, sums.scatter_add(0, place.unsqueeze(1).expand_as(values), values)


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


def dense_only(gradients):
    norms = [g.norm() for g in gradients if not g.is_sparse]
    return torch.stack(norms).norm() if norms else gradients[0].norm()


def sparse_only(gradients):
    norms = [g.norm() for g in gradients if g.is_sparse]
    return torch.stack(norms).norm() if norms else torch.tensor(0.0)


def by_hypot(gradients):
    """Right, two norms at a time."""
    return functools.reduce(torch.hypot, [g.norm() for g in gradients])


def by_total_norm(gradients):
    """Right, by PyTorch's own function on the values."""
    return nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])


def uncoalesced_values(gradients):
    return torch.stack([(g.values() if g.is_sparse else g).norm() for g in gradients]).norm()


def in_single_precision(gradients):
    return tidy_norm(gradients).norm().float()


def sum_of_squares(gradients):
    """Right, by one running sum."""
    total = 0
    for g in gradients:
        numbers = g.coalesce().values() if g.is_sparse else g
        total = total + (numbers * numbers).sum()
    return total**0.5


def in_one_row(gradients):
    """Right, by one long vector."""
    parts = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return torch.linalg.vector_norm(torch.cat([part.flatten() for part in parts]))


STATE = {"SGD": 0, "momentum": 1, "Adagrad": 1, "Adam": 2}
WORKING = {"SGD": 0, "momentum": 0, "Adagrad": 1, "Adam": 2}


def tables(optimizer, sparse, gradient=1, working=True, state=True):
    parts = 1 + STATE[optimizer] * state
    if not sparse:
        parts += gradient + WORKING[optimizer] * working
    return parts


def rows(memory, D, optimizer, sparse, activations, number=4, pick=min, whole=math.floor, **parts):
    """Exercise 1 of the side lesson on peak memory, with its mistakes to choose from."""
    row = number * D
    forward = (memory - activations) / ((1 + STATE[optimizer] * parts.get("state", 1)) * row)
    step = memory / (tables(optimizer, sparse, **parts) * row)
    return max(0, whole(pick(forward, step)))


def added_up(memory, D, optimizer, sparse, activations):
    return max(0, (memory - activations) // (tables(optimizer, sparse) * 4 * D))


def without_activations(memory, D, optimizer, sparse, activations):
    return memory // (tables(optimizer, sparse) * 4 * D)


def at_rest_only(memory, D, optimizer, sparse, activations):
    return max(0, (memory - activations) // ((1 + STATE[optimizer]) * 4 * D))


def always_dense(memory, D, optimizer, sparse, activations):
    return rows(memory, D, optimizer, False, activations)


def sparse_state(memory, D, optimizer, sparse, activations):
    return rows(memory, D, optimizer, sparse, activations, state=not sparse)


def below_zero(memory, D, optimizer, sparse, activations):
    limits = (memory - activations) / ((1 + STATE[optimizer]) * 4 * D), memory
    return min(math.floor(limits[0]), rows(memory, D, optimizer, sparse, 0))


def with_both(memory, D, optimizer, sparse, activations, at_rest, peak):
    limits = (memory - activations) // (at_rest * 4 * D), memory // (peak * 4 * D)
    return max(0, min(limits))


def late_zero_grad(memory, D, optimizer, sparse, activations):
    at_rest = 1 + STATE[optimizer] + (not sparse)
    return with_both(memory, D, optimizer, sparse, activations, at_rest, tables(optimizer, sparse))


def weight_alone(memory, D, optimizer, sparse, activations):
    return with_both(memory, D, optimizer, sparse, activations, 1, tables(optimizer, sparse))


def step_without_state(memory, D, optimizer, sparse, activations):
    at_rest, peak = 1 + STATE[optimizer], tables(optimizer, sparse) - STATE[optimizer]
    return with_both(memory, D, optimizer, sparse, activations, at_rest, peak)


def without_sign(memory, D, optimizer, sparse, activations):
    limit, at_rest = abs(memory - activations), 1 + STATE[optimizer]
    return min(limit // (at_rest * 4 * D), memory // (tables(optimizer, sparse) * 4 * D))


def by_search(memory, D, optimizer, sparse, activations):
    """Right, by halving an interval."""
    at_rest, peak = 1 + STATE[optimizer], tables(optimizer, sparse)
    low, high = 0, memory
    while low < high:
        V = (low + high + 1) // 2
        fits = V * 4 * D * at_rest + activations <= memory and V * 4 * D * peak <= memory
        low, high = (V, high) if fits else (low, V - 1)
    return low


RIGHT = {
    "sparse_gradients.merged": [
        distinct_sums,
        by_comparison,
        by_sorting,
        by_scatter,
        by_embedding,
        by_search_sorted,
    ],
    "sparse_gradients.total_norm": [
        lambda gradients: torch.stack([g.norm() for g in gradients]).norm(),
        sum_of_squares,
        in_one_row,
        by_hypot,
        by_total_norm,
    ],
    "sparse_gradients.outcome": [
        {name: np.str_(word) for name, word in OUTCOME.items()},
        {name: f"{word.capitalize()}." for name, word in OUTCOME.items()},
    ],
    "sparse_gradients.most_rows": [
        rows,
        by_search,
        lambda *case: torch.tensor(rows(*case)),
        lambda *case: np.int64(rows(*case)),
        lambda *case: float(rows(*case)),
    ],
}

WRONG = {
    "sparse_gradients.merged": [
        (keeps_one, "keeps one of its lines"),
        (adds_in_brackets, "keeps one of its lines"),
        (means, "averaged"),
        (lambda indices, values: (indices, values), "twice"),
        (in_order_of_appearance, "rising order"),
        (sums_in_order_of_appearance, "own row's place"),
        (of_the_table, "size of the table"),
        (by_pytorch, "No sparse tensor"),
        (fails_when_empty, "no lines at all"),
        (lambda indices, values: distinct_sums(indices, values)[1], "pair"),
        (lambda indices, values: distinct_sums(indices, values.zero_()), "wrote into"),
        (lambda indices, values: distinct_sums(indices.add_(1).sub_(1), values), "wrote into"),
        (lambda indices, values: (indices.unique() + 1, values), "distinct rows"),
        (neighbours_only, "neighbours only"),
        (lambda i, x: (i.unique(return_inverse=True)[1], distinct_sums(i, x)[1]), "not the rows"),
        (without_zeros, "stays, with zeros"),
        (in_float32, "any dtype"),
        (rounded_to_float32, "torch.float64 is wanted"),
        (through_float32, "rounded to fewer digits"),
        (rows_in_int32, "should be int64"),
        (on_the_cpu, "device"),
        (lambda indices, values: distinct_sums(indices % 1000, values), "distinct rows"),
        (through_float_ids, "Large ids are not exact"),
        (next_row, "Large ids are not exact"),
        (fails_at_maximum, "no lines at all"),
        (times_their_number, "number of its lines"),
        (lambda i, x: (i.unique(), distinct_sums(i, x)[1][:, :5] * 2), "own row's place"),
    ],
    "sparse_gradients.total_norm": [
        (loose_norm, "squared one by one"),
        (lambda gradients: sum(g.norm() for g in gradients), "do not add up"),
        (lambda gradients: sum(g.norm() ** 2 for g in gradients), "square of the norm"),
        (lambda gradients: max(g.norm() for g in gradients), "one of the gradients"),
        (dense_only, "dense gradients only"),
        (sparse_only, "sparse gradients only"),
        (clips_as_well, "changed a gradient"),
        # From PyTorch 2.14 on this is right.
        *[(nn.utils.get_total_norm, "knows sparse tensors")][: torch.__version__ < "2.14"],
        (lambda gradients: torch.stack([g.norm() for g in gradients]).norm().item(), "a tensor"),
        (lambda gradients: tidy_norm(gradients).norm().reshape(1), "shape"),
        (tidy_norm, "shape"),
        (uncoalesced_values, "coalesce first"),
        (in_single_precision, "dtype"),
        (dense_norm, "size of the table"),
        (coalesces_in_the_list, "changed the list"),
        (lambda gradients: nn.utils.clip_grad_norm_(gradients, 1.0), "reads .grad"),
        (lambda gradients: 1 / 0, "Given a list of 4 tensors, your"),
    ],
    "sparse_gradients.outcome": [
        (OUTCOME | {"SGD": "other"}, "same rows"),
        (OUTCOME | {"SGD(momentum=0.9)": "other"}, "remembers the absent"),
        (OUTCOME | {"SGD(momentum=0.9)": "refused"}, "it steps"),
        (OUTCOME | {"SGD(momentum=0.9, weight_decay=0.1)": "other"}, "fills in the zeros"),
        (OUTCOME | {"SGD(momentum=0.9, weight_decay=0.1)": "same"}, "fills in the zeros"),
        (OUTCOME | {"Adagrad": "other"}, "sum of squares"),
        (OUTCOME | {"Adam, SparseAdam": "same"}, "becomes of m"),
        (OUTCOME | {"Adam, SparseAdam": "refused"}, "it steps"),
        (OUTCOME | {"Adam, SparseAdam, all ids in each batch": "other"}, "rows are absent here"),
        (OUTCOME | {"Adagrad": "no"}, "refused"),
        (OUTCOME | {"Adagrad": True}, "refused"),
        (OUTCOME | {"SGD": ...}, 'filled in: "SGD"'),
        (["same"] * 6, "Fill in the dictionary"),
    ],
    "sparse_gradients.most_rows": [
        (added_up, "never in use together"),
        (without_activations, "activations are missing"),
        (at_rest_only, "Only the end of forward"),
        (lambda *case: rows(*case, pick=max), "smaller of the two"),
        (lambda *case: rows(*case, number=1), "takes 4 bytes"),
        (lambda *case: rows(*case, number=8), "not 8"),
        (sparse_state, "leaves the state whole"),
        (lambda *case: rows(*case, state=False), "state is missing"),
        (always_dense, "Leave them out"),
        (lambda *case: rows(*case, working=False), "Working space is missing"),
        (lambda *case: rows(*case, gradient=0), "gradient is missing"),
        (lambda *case: rows(*case) + 1, "round down"),
        (lambda *case: rows(*case, whole=math.ceil), "round down"),
        (lambda *case: rows(*case, whole=float), "Rows are whole"),
        (below_zero, "not even one row"),
        (lambda *case: max(1, rows(*case)), "not even one row"),
        (without_sign, "not even one row"),
        (lambda *case: max(0, rows(*case) - 1), "One row more fits"),
        (late_zero_grad, "zero_grad is early"),
        (weight_alone, "not the weight alone"),
        (step_without_state, "In the step the state"),
        (lambda memory, D, *case: rows(memory, 1, *case), "D numbers"),
        (lambda *case: rows(*case[:-1], 0 if case[3] else case[4]), "as large as before"),
        (lambda *case: 4, "at each of the two moments"),
        (lambda *case: float("inf"), "finite|whole"),
        (lambda *case: str(rows(*case)), "should be a number"),
        (lambda *case: print(*case), "returned None"),
    ],
}
