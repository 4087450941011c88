"""Lesson 03: wrong answers that readers give, and a part of the hint that each should get."""

from collections.abc import Callable

import torch


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


def spoils_the_weight(ids, weight):
    weight[3] = 0
    return weight[ids]


SETS = {
    "SGD": {2, 3},
    "SGD(momentum=0.9)": {1, 2, 3},
    "SGD(weight_decay=0.1)": {0, 1, 2, 3, 4, 5},
    "Adam": {1, 2, 3},
    "AdamW": {0, 1, 2, 3, 4, 5},
}


def tied_by_autograd(ids, S, E):
    E = E.requires_grad_()
    return torch.autograd.grad((S * (E[ids] @ E.T)).sum(), E)[0]


WRONG = {
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
        (tied_by_autograd, "Autograd is switched off"),
        (lambda ids, S, E: S.T @ E[ids] + S @ E, "it is G"),
        (lambda ids, S, E: S.T @ E[ids], "look-up's term is missing"),
        (lambda ids, S, E: added(ids, S @ E, len(E)), "scores' term is missing"),
        (lambda ids, S, E: S.T @ E[ids] + assigned(ids, S @ E, len(E)), "keeps one line"),
    ],
}
