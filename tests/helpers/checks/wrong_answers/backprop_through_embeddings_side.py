"""Side lessons of lesson 03: wrong answers, and right ones of unusual make."""

import torch
import torch.nn.functional as F
from wrong_answers.backprop_through_embeddings import added, assigned, counts


def tied_by_autograd(ids, S, E):
    E = E.requires_grad_()
    return torch.autograd.grad((S * (E[ids] @ E.T)).sum(), E)[0]


def tied(ids, S, E):
    return S.T @ E[ids] + added(ids, S @ E, len(E))


def tied_in_place(ids, S, E):
    H, G = E[ids].clone(), S @ E
    E.zero_()
    return E.index_add_(0, ids, G) + S.T @ H


def tied_by_one_hot(ids, S, E):
    P = F.one_hot(ids.long(), len(E)).to(E.dtype)
    return (S.T @ P + P.T @ S) @ E


def tied_in_a_loop(ids, S, E):
    dE = S.T @ E[ids]
    for b, v in enumerate(ids.tolist()):
        dE[v] += S[b] @ E
    return dE


WRONG = {
    "backprop_through_embeddings.tied_gradient": [
        (tied_by_autograd, "Autograd is switched off"),
        (lambda ids, S, E: S.T @ E[ids] + S @ E, "end it home"),
        (lambda ids, S, E: S.T @ E[ids], "look-up's term is missing"),
        (lambda ids, S, E: added(ids, S @ E, len(E)), "scores' term is missing"),
        (lambda ids, S, E: S.T @ E[ids] + assigned(ids, S @ E, len(E)), "keeps one line"),
        (lambda ids, S, E: S.T @ E[ids] - added(ids, S @ E, len(E)), "not subtracted"),
        (lambda ids, S, E: -tied(ids, S, E), "sign"),
        (lambda ids, S, E: S.T @ E[ids] + added(ids, S, len(E)), "G = S E"),
        (lambda ids, S, E: (S.T @ E[ids]).index_add_(0, ids, S), "G = S E"),
        (lambda ids, S, E: S @ E, "That is G"),
        (lambda ids, S, E: 2 * added(ids, S @ E, len(E)), "are the look-up's"),
        (
            lambda ids, S, E: S.T @ E[ids] + added(ids, S @ E, len(E)) / counts(ids, len(E)),
            "averaged",
        ),
        (lambda ids, S, E: tied(ids, S, E) * (E.dtype != torch.float16), "Not yet the sum"),
        (
            lambda ids, S, E: tied(ids, S, E) if len(ids) else torch.ones_like(E),
            "no place changes no row",
        ),
        (lambda ids, S, E: 2 * S.T @ E[ids], "are the scores'"),
        (lambda ids, S, E: tied(ids, S, E) / 2, "mean of the two"),
        (lambda ids, S, E: tied(ids, S.float(), E.float()).to(E.dtype), "float32's digits"),
        (lambda ids, S, E: tied(ids, S.float(), E.float()), "dtype"),
        (
            lambda ids, S, E: (
                torch.zeros(E.shape, dtype=E.dtype).index_add_(0, ids, S @ E) + S.T @ E[ids]
            ),
            "on the inputs' device",
        ),
        (tied_in_place, "wrote into"),
        (lambda ids, S, E: print(tied(ids, S, E)), "return"),
    ],
}

RIGHT = {
    "backprop_through_embeddings.tied_gradient": [
        tied,
        tied_by_one_hot,
        tied_in_a_loop,
        lambda ids, S, E: (S.T @ E[ids]).index_add_(0, ids, S @ E),
    ],
}
