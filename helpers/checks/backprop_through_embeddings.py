"""Checks of lesson 03: the gradient of a table, by hand, by Function and under optimizers."""

import inspect
from functools import partial

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, by_hand, call, close, describe, exercise, same


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
        if close(value, -truth):
            raise Wrong("The sign is turned. This is the gradient; the step subtracts it.")
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
    for shape, pad, dtype in [((8,), 3, torch.float32), ((3, 4), 0, torch.float64)]:
        ids = torch.randint(5, shape)
        ids.view(-1)[:3] = torch.tensor([pad, 1, 1])
        weight = torch.randn(5, 4, dtype=dtype, requires_grad=True)
        before, G = weight.detach().clone(), torch.randn(*shape, 4, dtype=dtype)
        rows = call(lambda i, w, p=pad: answer.apply(i, w, p), ids, weight, copy=False)
        if not torch.equal(weight, before):
            raise Wrong("Forward wrote into the weight. Others read it too.")
        if not same(rows, F.embedding(ids, weight), "The output"):
            raise Wrong("Forward should return the plain rows, the padding row included.")
        given = G.clone()
        back = partial(torch.autograd.grad, rows, weight, allow_unused=True)
        (value,) = call(back, given, copy=False, name="backward")
        if value is None:
            raise Wrong("backward gave None for the weight, the second of the three arguments.")
        if not torch.equal(G, given):
            raise Wrong("You wrote into G. Others may need it: select from it, or copy it.")
        (truth,) = torch.autograd.grad(F.embedding(ids, weight, padding_idx=pad), weight, G)
        if same(value, truth, "The gradient"):
            if not torch.allclose(value, truth, rtol=1e-5 if dtype == torch.float32 else 1e-12):
                raise Wrong("For float64 the gradient has only float32's digits: use G's dtype.")
            continue
        if value[pad].any():
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
        said, truth = _rows(name, answer[name]), _moved(make)
        if truth & {2, 3} - said:
            raise Wrong(f"{name}: rows 2 and 3 are looked up in the second batch, and so move.")
        if 1 in truth - said and truth != set(range(6)):
            raise Wrong(f"{name}: row 1 was looked up in the first batch. Is it forgotten?")
        if truth - said:
            raise Wrong(f"{name}: more rows move than you say. What pulls on all of them?")
        if 1 in said - truth:
            raise Wrong(f"{name}: row 1 was looked up before, but does this optimizer remember?")
        if said - truth:
            raise Wrong(f"{name}: fewer rows move than you say. What would move the others?")
    return "Looked up now, remembered by momentum, or pulled by weight decay."


def _rows(name: str, answer: object) -> set:
    """The reader's rows of one optimizer as a set; `Wrong` where they are no rows."""
    try:
        said = set(answer)
    except TypeError:
        raise Wrong(f"{name}: a set of rows such as {{2, 3}}, not {describe(answer)}.") from None
    if not said <= set(range(6)):
        raise Wrong(f"{name}: the rows are 0 to 5, and you name {sorted(map(str, said))}.")
    return said


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
    lines = "S @ E has a line for each place b, not for each row: it is G. Send its lines home."
    for V, D, batch in [(6, 4, 5), (9, 3, 8)]:
        E, S = torch.randn(V, D, requires_grad=True), torch.randn(batch, V)
        ids = torch.randint(V, (batch,))
        ids[[1, 3]] = ids[0].item()  # one id stands there three times at least
        (truth,) = torch.autograd.grad((S * (E[ids] @ E.T)).sum(), E)
        E = E.detach()
        value = by_hand(answer, ids, S, E, hints={"must match the size": lines})
        if same(value, truth, "The gradient"):
            continue
        as_output, G = S.T @ E[ids], S @ E
        if close(value, as_output):
            raise Wrong("That is the scores' term. The look-up's term is missing.")
        if close(value, torch.zeros(V, D).index_add_(0, ids, G)):
            raise Wrong("That is the look-up's term. The scores' term is missing.")
        if _keeps_one_line(value - as_output, ids, G):
            raise Wrong("Both terms are there, but a repeated id keeps one line of G: add them up.")
        raise Wrong("Not yet the sum of both terms. For the look-up's: which gradient reaches H?")
    return "One matrix, two uses, and the two gradients add."
