"""Every exercise: right when solved, not attempted as it stands, wrong with a fitting hint."""

import importlib
import math
import re
import sys
from collections.abc import Callable
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
