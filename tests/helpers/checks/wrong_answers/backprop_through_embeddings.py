"""Lesson 03: wrong answers that readers give, and a part of the hint that each should get."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F


def added(ids, G, V):
    return G.new_zeros(V, G.shape[-1]).index_add_(0, ids.flatten(), G.flatten(end_dim=-2))


def assigned(ids, G, V):
    dE = G.new_zeros(V, G.shape[-1])
    dE[ids.long()] = G
    return dE


def mean(ids, weight):
    return weight[ids].mean(dim=1)


def function(backward: Callable, forward: Callable = mean) -> type:
    """An autograd.Function for exercise 1 of lesson 03, from its backward(ids, G, V)."""

    class Answer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, ids, weight):
            ctx.save_for_backward(ids)
            ctx.V = weight.shape[0]
            return forward(ids, weight)

        @staticmethod
        def backward(ctx, G):
            (ids,) = ctx.saved_tensors
            return None, backward(ids, G, ctx.V)

    return Answer


def words(ids, G):
    """Each word's share of its bag's line: (batch, length, D)."""
    return (G / ids.shape[1]).unsqueeze(1).expand(*ids.shape, G.shape[1])


def shared(ids, G, V):
    return added(ids, words(ids, G), V)


def counts(ids, V):
    return ids.flatten().bincount(minlength=V).clamp(min=1).unsqueeze(1)


def divides_g(ids, G, V):
    G /= ids.shape[1]
    return added(ids, G.unsqueeze(1).expand(*ids.shape, G.shape[1]), V)


def spoils_the_weight(ids, weight):
    weight[0] = 0
    return mean(ids, weight)


def puts_back(ids, weight):
    row = weight[0].clone()
    weight[0] = 0
    weight[0] = row
    return mean(ids, weight)


def without_dtype(ids, G, V):
    return torch.zeros(V, G.shape[1]).index_add_(0, ids.flatten(), words(ids, G).flatten(0, 1))


def float32_inside(ids, G, V):
    return shared(ids, G.float(), V).to(G.dtype)


def new_on_the_default_device(ids, G, V):
    zeros = torch.zeros(V, G.shape[1], dtype=G.dtype)
    return zeros.index_add_(0, ids.flatten(), words(ids, G).flatten(0, 1))


def cut(most_words, most_bags):
    """A backward that sends nothing to the words and bags after these."""
    return lambda ids, G, V: shared(
        ids[:most_bags, :most_words],
        G[:most_bags] * min(most_words, ids.shape[1]) / ids.shape[1],
        V,
    )


def zeroes_the_ids(ids, G, V):
    dE = shared(ids, G, V)
    ids.zero_()
    return dE


def on_the_cpu(ids, G, V):
    zeros = torch.zeros(V, G.shape[1], dtype=G.dtype, device="cpu")
    return zeros.index_add_(0, ids.flatten(), words(ids, G).flatten(0, 1))


def in_lines(ids, G):
    return (G / ids.shape[1]).repeat_interleave(ids.shape[1], dim=0)


def by_distinct(ids, G, V):
    distinct = torch.tensor([len(line.unique()) for line in ids]).clamp(min=1).to(G.dtype)
    return added(ids, words(ids, G * ids.shape[1] / distinct.unsqueeze(1)), V)


def returns(gradients: Callable) -> type:
    """A Function whose backward returns what `gradients` makes of its dE."""

    class Answer(function(shared)):
        @staticmethod
        def backward(ctx, G):
            (ids,) = ctx.saved_tensors
            return gradients(G, shared(ids, G, ctx.V))

    return Answer


class WritesIntoTheWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, weight):
        ctx.save_for_backward(ids)
        ctx.weight = weight
        return mean(ids, weight)

    @staticmethod
    def backward(ctx, G):
        dE = shared(ctx.saved_tensors[0], G, len(ctx.weight))
        ctx.weight.data -= 0.1 * dE  # no version tells
        return None, dE


class StubOfBackward(torch.autograd.Function):
    forward = function(shared).forward

    @staticmethod
    def backward(ctx, G): ...


class MadeInForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, weight):
        ctx.save_for_backward(ids)
        ctx.dE = torch.zeros_like(weight)
        return mean(ids, weight)

    @staticmethod
    def backward(ctx, G):
        (ids,) = ctx.saved_tensors
        return None, ctx.dE.index_add_(0, ids.flatten(), in_lines(ids, G))


class OneBuffer(torch.autograd.Function):
    """All gradients of one shape and dtype are one tensor."""

    buffers = {}
    forward = function(shared).forward

    @staticmethod
    def backward(ctx, G):
        (ids,) = ctx.saved_tensors
        key = ctx.V, G.shape[1], G.dtype
        dE = OneBuffer.buffers.setdefault(key, G.new_zeros(ctx.V, G.shape[1])).zero_()
        return None, dE.index_add_(0, ids.flatten(), in_lines(ids, G))


class KeptByShape(torch.autograd.Function):
    kept = {}

    @staticmethod
    def forward(ctx, ids, weight):
        KeptByShape.kept[ids.shape, weight.shape] = ids
        ctx.shapes = ids.shape, weight.shape
        return mean(ids, weight)

    @staticmethod
    def backward(ctx, G):
        return None, shared(KeptByShape.kept[ctx.shapes], G, ctx.shapes[1][0])


class KeptInTheClass(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, weight):
        KeptInTheClass.ids, KeptInTheClass.V = ids, len(weight)
        return mean(ids, weight)

    @staticmethod
    def backward(ctx, G):
        return None, shared(KeptInTheClass.ids, G, KeptInTheClass.V)


class OneGradient(torch.autograd.Function):
    forward = function(shared).forward

    @staticmethod
    def backward(ctx, G):
        (ids,) = ctx.saved_tensors
        return shared(ids, G, ctx.V)


class Swapped(torch.autograd.Function):
    forward = function(shared).forward

    @staticmethod
    def backward(ctx, G):
        (ids,) = ctx.saved_tensors
        return shared(ids, G, ctx.V), None


class ByOneHot(torch.autograd.Function):
    """Pᵀ G, with the mean inside P."""

    @staticmethod
    def forward(ctx, ids, weight):
        ctx.P = F.one_hot(ids.long(), len(weight)).to(weight.dtype).mean(dim=1)
        return weight[ids].mean(dim=1)

    @staticmethod
    def backward(ctx, G):
        return None, ctx.P.T @ G


class ByVjp(torch.autograd.Function):
    forward = function(shared).forward

    @staticmethod
    def vjp(ctx, G):
        (ids,) = ctx.saved_tensors
        return None, shared(ids, G, ctx.V)


def made_and_moved(ids, G, V):
    zeros = torch.zeros(V, G.shape[1]).to(G)
    return zeros.index_add_(0, ids.flatten(), in_lines(ids, G))


def by_a_tensor(ids, G, V):
    """Divides by a tensor of no axes, which goes with any device."""
    return added(ids, (G / torch.tensor(ids.shape[1])).repeat_interleave(ids.shape[1], 0), V)


def by_sorting(ids, G, V):
    """Sorts the words, and takes differences of running sums at the ends of each word's run."""
    flat, order = ids.flatten().long().sort()
    sums = torch.cat([G.new_zeros(1, G.shape[1]), in_lines(ids, G)[order].cumsum(0)])
    ends = flat.bincount(minlength=V).cumsum(0)
    return sums[ends] - sums[torch.cat([ends.new_zeros(1), ends[:-1]])]


class ByAutograd(torch.autograd.Function):
    """Keeps the weight, and lets PyTorch differentiate its own mean."""

    @staticmethod
    def forward(ctx, ids, weight):
        ctx.save_for_backward(ids, weight)
        return F.embedding(ids, weight).mean(dim=1)

    @staticmethod
    def backward(ctx, G):
        ids, weight = ctx.saved_tensors
        with torch.enable_grad():
            again = weight.detach().requires_grad_()
            out = F.embedding(ids, again).mean(dim=1)
        return None, torch.autograd.grad(out, again, G)[0]


class SetUpApart(torch.autograd.Function):
    """The other form of a Function: what is kept is kept in a method of its own."""

    @staticmethod
    def forward(ids, weight):
        return mean(ids, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.ids, ctx.V = inputs[0], len(inputs[1])

    @staticmethod
    def backward(ctx, G):
        return None, shared(ctx.ids, G, ctx.V)


def in_a_loop(ids, G, V):
    dE = G.new_zeros(V, G.shape[1])
    for line, g in zip(ids.tolist(), G, strict=True):
        for v in line:
            dE[v] += g / len(line)
    return dE


def each_word_once(ids, G, V):
    dE = G.new_zeros(V, G.shape[1])
    for line, g in zip(ids.tolist(), G, strict=True):
        for v in set(line):
            dE[v] += g / len(line)
    return dE


def sparse(ids, G, V):
    lines = words(ids, G).flatten(0, 1)
    return torch.sparse_coo_tensor(ids.reshape(1, -1).long(), lines, (V, G.shape[1]))


SETS = {
    "SGD": {2, 3},
    "SGD(momentum=0.9)": {1, 2, 3},
    "SGD(weight_decay=0.1)": {1, 2, 3, 4, 5},
    "Adagrad": {2, 3},
    "Adam": {1, 2, 3},
    "AdamW": {1, 2, 3, 4, 5},
}


WRONG = {
    "backprop_through_embeddings.mean_look_up": [
        (function(lambda ids, G, V: ids.shape[1] * shared(ids, G, V)), "whole line of its bag"),
        (
            function(lambda ids, G, V: shared(ids, G, V) * ids.shape[1] / max(len(ids), 1)),
            "number of bags",
        ),
        (function(lambda ids, G, V: shared(ids, G, V) / max(len(ids), 1)), "also divide"),
        (function(lambda ids, G, V: shared(ids, G, V) / ids.shape[1]), "twice"),
        (function(lambda ids, G, V: assigned(ids, words(ids, G), V)), "keeps one of its lines"),
        (
            function(lambda ids, G, V: assigned(ids, ids.shape[1] * words(ids, G), V)),
            "not shared out",
        ),
        (function(lambda ids, G, V: shared(ids, G, V) / counts(ids, V)), "averaged"),
        (function(lambda ids, G, V: -shared(ids, G, V)), "sign"),
        (function(lambda ids, G, V: added(ids, G, V)), "give each word its bag's line"),
        (
            function(lambda ids, G, V: added(ids, (G / ids.shape[1]).repeat(ids.shape[1], 1), V)),
            "wrong words",
        ),
        (function(lambda ids, G, V: added(ids[:, 0], G / ids.shape[1], V)), "a bag's first word"),
        (function(lambda ids, G, V: shared(ids, G, V)[:-1]), "shape"),
        (function(lambda ids, G, V: shared(ids, G, int(ids.max()) + 1)), "shape"),
        (function(each_word_once), "copied twice"),
        (function(lambda ids, G, V: None), "None for the weight"),
        (function(divides_g), "In backward you wrote into G"),
        (function(shared, forward=spoils_the_weight), "wrote into the weight"),
        (function(shared, forward=puts_back), "wrote into the weight"),
        (function(shared, forward=lambda ids, weight: weight[ids]), "row for each word"),
        (function(shared, forward=lambda ids, weight: weight[ids].sum(dim=1)), "not their mean"),
        (function(without_dtype), "another dtype"),
        (function(float32_inside), "float32's digits"),
        (function(new_on_the_default_device), "on the inputs' device"),
        (KeptInTheClass, "in ctx"),
        (OneGradient, "for each argument"),
        (returns(lambda G, dE: [None, dE]), "as a tuple"),
        (returns(lambda G, dE: (G, dE)), "None for them"),
        (returns(lambda G, dE: (None, dE, None)), "for each argument"),
        (StubOfBackward, "still to be written"),
        (WritesIntoTheWeight, "In backward you wrote into the weight"),
        (function(zeroes_the_ids), "In backward you wrote into ids"),
        (
            function(
                shared, forward=lambda ids, weight: mean(ids, weight.float()).to(weight.dtype)
            ),
            "the output has only float32's digits",
        ),
        (MadeInForward, "Backward ran twice"),
        (OneBuffer, "Backward ran twice"),
        (KeptByShape, "in ctx"),
        (function(on_the_cpu), "on the inputs' device"),
        (function(lambda ids, G, V: shared(ids, G, V) * (G.dtype != torch.float16)), "float16"),
        (function(cut(4, 10**6)), "on paper"),
        (function(cut(10**6, 5)), "on paper"),
        (function(lambda ids, G, V: shared(ids, G, V) * ids.shape[1] / G.shape[1]), "by D"),
        (function(lambda ids, G, V: shared(ids, G, V) * ids.shape[1] / V), "by V"),
        (
            function(
                lambda ids, G, V: shared(ids, G, V) * ids.shape[1] / max(len(ids.unique()), 1)
            ),
            "different words",
        ),
        (function(by_distinct), "different words"),
        (function(lambda ids, G, V: added(ids.T, in_lines(ids, G), V)), r"ids\.T\.flatten"),
        (
            function(lambda ids, G, V: G.new_zeros(V, G.shape[1]).index_add_(0, ids, G)),
            "flatten the ids",
        ),
        (
            function(
                lambda ids, G, V: shared(ids, G, V) if len(ids) else G.new_ones(V, G.shape[1])
            ),
            "no bag changes no row",
        ),
        (Swapped, "None for the weight|not a Tensor|different than None"),
        (mean, "autograd.Function"),
    ],
    "backprop_through_embeddings.second_step": [
        (SETS | {"SGD": {1, 2, 3}}, "step along what it remembers"),
        (SETS | {"Adagrad": {1, 2, 3}}, "step along what it remembers"),
        (SETS | {"Adam": {2, 3}}, "forgotten"),
        (SETS | {"SGD(momentum=0.9)": {2, 3}}, "forgotten"),
        (SETS | {"AdamW": {1, 2, 3}}, "pulls on all"),
        (SETS | {"AdamW": {0, 1, 2, 3, 4, 5}}, "zeros decay"),
        (SETS | {"Adam": {1, 2, 3, 4, 5}}, "Only decay would move"),
        (SETS | {"Adam": {0, 1, 2, 3}}, "padding_idx let through"),
        (SETS | {"SGD": {0, 2, 3}}, "padding_idx let through"),
        (SETS | {"Adam": ...}, 'filled in: "Adam"'),
        (SETS | {"SGD": 2}, "a set of rows"),
        (SETS | {"SGD": "23"}, "a set of rows"),
        (SETS | {"SGD": [False, False, True, True, False, False]}, "a mask, name the rows"),
        (SETS | {"SGD": [0, 0, 1, 1, 0, 0]}, "a mask, name the rows"),
        (SETS | {"SGD": torch.tensor([0.0, 0, 1, 1, 0, 0])}, "a mask, name the rows"),
        (SETS | {"SGD": [True, 2]}, "a set of rows"),
        (SETS | {"SGD": {3, 4}}, "second batch"),
        (SETS | {"SGD": set()}, "second batch"),
        (SETS | {"AdamW": {1, 2, 3, 4, 5, 6}}, "0 to 5"),
        (SETS | {"SGD(weight_decay=0.1)": {2, 3}}, "pulls on all"),
    ],
}

RIGHT = {
    "backprop_through_embeddings.mean_look_up": [
        function(shared),
        function(in_a_loop),
        function(by_a_tensor),
        function(made_and_moved),
        function(by_sorting),
        ByVjp,
        ByOneHot,
        ByAutograd,
        SetUpApart,
        function(sparse),
        function(shared, forward=lambda ids, weight: F.embedding(ids, weight).mean(1)),
    ],
    "backprop_through_embeddings.second_step": [
        SETS,
        {name: sorted(rows) for name, rows in SETS.items()},
        {name: torch.tensor(sorted(rows)) for name, rows in SETS.items()},
        {name: np.array(sorted(rows)) for name, rows in SETS.items()},
        {name: {torch.tensor(row) for row in rows} for name, rows in SETS.items()},
        SETS | {"AdamW": range(1, 6), "Adam": (3, 2, 1, 1), "SGD": frozenset({2.0, 3.0})},
    ],
}
