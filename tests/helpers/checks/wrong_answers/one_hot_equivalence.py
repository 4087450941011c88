"""Lesson 02: wrong answers that readers give, and a part of the hint that each should get."""

import torch
import torch.nn.functional as F
from torch import nn


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


WRONG = {
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
        (lambda ids, V: set(ids) == set(range(V)), "gives numbers"),
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
}
