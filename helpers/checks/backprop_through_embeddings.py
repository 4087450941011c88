"""Checks of lesson 03: the gradient of a table, by hand, by Function and under optimizers."""

import inspect

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, call, close, describe, exercise, same


@exercise
def table_gradient(answer):
    """A function (ids, G, V) -> gradient of a table of V rows."""
    for batch, V in [(3, 9), (40, 7)]:
        ids, G = torch.randint(V - 1, (batch,)), torch.randn(batch, 5)
        ids[-1] = ids[0]  # there is always a repeat
        value = call(answer, ids, G, V)
        counts = ids.bincount(minlength=V).clamp(min=1).unsqueeze(1)
        truth = F.one_hot(ids, V).float().T @ G
        if same(value, truth, "The gradient"):
            continue
        if close(value, truth / counts):
            raise Wrong("Repeats are averaged. Their lines should be added up.")
        if _keeps_one_line(value, ids, G):
            raise Wrong("A repeated id keeps one of its lines. All of them should be added up.")
        raise Wrong("The shape is right. Which lines of G belong to which row?")
    return "Every line lands on its row, and repeats add up."


def _keeps_one_line(value, ids, G) -> bool:
    """Whether each row of `value` that was looked up is one of the lines of G meant for it."""
    return all(any(close(value[v], line) for line in G[ids == v]) for v in ids.unique())


@exercise
def padded_look_up(answer):
    """An autograd.Function (ids, weight, pad) with the gradient of a padded look-up."""
    if not (inspect.isclass(answer) and issubclass(answer, torch.autograd.Function)):
        raise Wrong(f"An autograd.Function is wanted here, not {describe(answer)}.")
    for shape, pad in [((8,), 3), ((3, 4), 0)]:
        ids, weight = torch.randint(5, shape), torch.randn(5, 4, requires_grad=True)
        ids.view(-1)[:3] = torch.tensor([pad, 1, 1])
        rows = call(lambda i, w, p=pad: answer.apply(i, w, p), ids, weight, copy=False)
        if not same(rows, F.embedding(ids, weight), "The output"):
            raise Wrong("Forward should return the plain rows, the padding row included.")
        G = torch.randn(*shape, 4)
        given = G.clone()
        value = call(lambda g, r=rows, w=weight: torch.autograd.grad(r, w, g)[0], given, copy=False)
        if not torch.equal(G, given):
            raise Wrong("You wrote into G. Others may need it: select from it, or copy it.")
        (truth,) = torch.autograd.grad(F.embedding(ids, weight, padding_idx=pad), weight, G)
        if same(value, truth, "The gradient"):
            continue
        if not truth[pad].any() and value[pad].any():
            raise Wrong("The padding row has a gradient. Drop the lines of G at padding.")
        words = ids != pad
        if _keeps_one_line(value, ids[words], G[words]):
            raise Wrong("A repeated id keeps one of its lines. All of them should be added up.")
        raise Wrong(f"For ids of shape {shape} the gradient is not F.embedding's.")
    return "Padding lines are dropped, repeats are added, and G is as it was."


@exercise
def second_step(answer):
    """A dictionary from optimizer to the set of rows that change in the second step."""
    optimizers = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
        "SGD(momentum=0.9)": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "SGD(weight_decay=0.1)": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
        "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    }
    if not isinstance(answer, dict):
        raise Wrong(f"Fill in the dictionary that is there; this is {describe(answer)}.")
    missing = [name for name in optimizers if answer.get(name, ...) is ...]
    if missing:
        raise Wrong(f"Still to be filled in: {', '.join(missing)}.")
    for name, make in optimizers.items():
        if not isinstance(answer[name], set | frozenset | list | tuple):
            raise Wrong(f"{name}: a set of rows such as {{2, 3}}, not {describe(answer[name])}.")
        said, truth = set(answer[name]), _moved(make)
        if said == truth:
            continue
        if 1 in truth - said:
            raise Wrong(f"{name}: row 1 was looked up in the first batch. Is it forgotten?")
        if truth - said:
            raise Wrong(f"{name}: more rows move than you say. What pulls on all of them?")
        if 1 in said - truth:
            raise Wrong(f"{name}: row 1 was looked up before, but does this optimizer remember?")
        raise Wrong(f"{name}: fewer rows move than you say. What would move the others?")
    return "Looked up now, remembered by momentum, or pulled by weight decay."


def _moved(make) -> set[int]:
    table = nn.Embedding(6, 4)
    optimizer = make(table.parameters())
    for ids in ([1, 2], [2, 3]):
        before = table.weight.detach().clone()
        table.weight.grad = None
        table(torch.tensor(ids)).sum().backward()
        optimizer.step()
    return set((table.weight != before).any(dim=1).nonzero().flatten().tolist())


@exercise
def tied_gradient(answer):
    """A function (ids, S, E) -> gradient of (S * (E[ids] @ E.T)).sum() with respect to E."""
    for _ in range(2):
        E, ids = torch.randn(6, 4, requires_grad=True), torch.tensor([2, 5, 2, 0])
        S = torch.randn(4, 6)
        (truth,) = torch.autograd.grad((S * (E[ids] @ E.T)).sum(), E)
        value, E = call(answer, ids, S, E.detach()), E.detach()
        if same(value, truth, "The gradient"):
            continue
        as_output, G = S.T @ E[ids], S @ E
        as_input = torch.zeros(6, 4).index_add_(0, ids, G)
        overwritten = as_output.clone()
        overwritten[ids] += G
        if close(value, as_output):
            raise Wrong("That is the scores' term. The look-up's term is missing.")
        if close(value, as_input):
            raise Wrong("That is the look-up's term. The scores' term is missing.")
        if close(value, overwritten):
            raise Wrong("Both terms are there, but a repeated id lost a line: += keeps only one.")
        raise Wrong("There are two terms: S.T @ H for the scores, P.T @ (S @ E) for the look-up.")
    return "One matrix, two uses, and the two gradients add."
