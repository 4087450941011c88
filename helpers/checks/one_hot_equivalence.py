"""Checks of lesson 02: one-hot vectors, linear twins, permutations, bytes and mixtures."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import Wrong, call, close, describe, exercise, number, same


@exercise
def one_hot(answer):
    """A function (ids, V) -> float32 one-hot vectors, for ids of any shape."""
    for shape, V in [((3,), 8), ((2, 5), 6), ((), 4), ((2, 3, 4), 90), ((70,), 70)]:
        ids = torch.randint(V - 1, shape)  # the largest id is never in the batch
        truth = F.one_hot(ids, V).float()
        axis = "Comparing wants a new last axis for the words: ids.unsqueeze(-1)."
        vectors = call(answer, ids, V, hints={"must match the size": axis})
        if isinstance(vectors, torch.Tensor):
            if vectors.shape == F.one_hot(ids).shape != truth.shape:
                raise Wrong("You count classes in the batch. V may be larger than its ids show.")
            if vectors.shape == truth.shape and vectors.dtype != truth.dtype:
                raise Wrong(f"The vectors should be float32, not {vectors.dtype}: use .float().")
        if not same(vectors, truth, f"The answer for ids of shape {shape}"):
            raise Wrong(f"For ids of shape {shape} and V = {V} the ones stand at wrong places.")
    return "Ids of any shape, and V places even where the batch shows fewer."


@exercise
def as_linear(answer):
    """A function embedding -> nn.Linear with the same rows, in memory of its own."""
    for V, D in [(7, 3), (5, 1)]:
        table = nn.Embedding(V, D)
        before = table.weight.detach().clone()
        linear = _returned(answer, table)
        outputs = linear(torch.eye(V)).detach()
        if linear.bias is not None and not close(outputs, before):
            if close(outputs - linear.bias.detach(), before):
                raise Wrong("The rows are there, but a random bias is added to each: bias=False.")
        if close(linear.weight, before.reshape(D, V)) and D > 1:
            raise Wrong("reshape puts the numbers in other places. Transpose: .T")
        if not close(outputs, before):
            raise Wrong("The layer's outputs for one-hot vectors are not the table's rows.")
        if not torch.equal(table.weight, before):
            raise Wrong("The linear layer is right, but you changed the embedding's weight.")
        if "weight" not in dict(linear.named_parameters()) or not linear.weight.is_leaf:
            raise Wrong(
                "The outputs are right, but no optimizer can hold this weight: nn.Parameter."
            )
        if not linear.weight.requires_grad:
            raise Wrong("The outputs are right, but this weight is frozen: it cannot be trained.")
        with torch.no_grad():
            linear.weight.add_(1.0)
        if not torch.equal(table.weight, before):
            raise Wrong(
                f"For {V} rows of {D} the outputs are right, but both layers share memory: "
                ".T alone copies nothing."
            )
        if not table.weight.requires_grad:
            raise Wrong("The linear layer is right, but you froze the embedding.")
    return "The same rows, on their other side, and in memory of their own."


def _returned(answer, table) -> nn.Linear:
    """The reader's nn.Linear for `table`; the shapes tell the missing transposition."""
    V, D = table.weight.shape
    hints = {
        "must match the size": f"Linear's weight is {D} x {V}, the table's {V} x {D}: transpose.",
        "a leaf Variable": "Writing into a parameter needs `with torch.no_grad():` around it.",
    }
    linear = call(answer, table, hints=hints)
    if not isinstance(linear, nn.Linear):
        raise Wrong(f"Return an nn.Linear, not {describe(linear)}.")
    if linear.weight.shape != (D, V):
        shape = tuple(linear.weight.shape)
        raise Wrong(f"The weight has shape {shape}. Linear keeps outputs by inputs: transpose it.")
    return linear


@exercise
def is_permutation(answer):
    """A function (ids, V) -> whether ids select every row exactly once."""
    for V in [7, *torch.randint(5, 9, (4,)).tolist()]:
        some = torch.randperm(V)
        one, other = torch.randperm(V)[:2]
        repeated = some.clone()
        repeated[one] = some[other]
        cases = [
            (some, True, "every row once, in some order"),
            (torch.arange(V), True, "every row once, in the old order, which is an order too"),
            (torch.arange(V - 1), False, "no repeats, but the last row is left out"),
            (some[:-1], False, "no repeats, but one row is left out"),
            (repeated, False, "V ids, but one repeats and one row is left out"),
            (torch.tensor([0, 0, 3, *range(3, V)]), False, "the right length and sum, but repeats"),
            (torch.randint(V - 1, (V,)), False, "V ids, but with repeats"),
            (torch.cat([some, some[:1]]), False, "every row, but one of them twice"),
        ]
        if V == 7:
            ids = torch.tensor([5, 5, 5, 4, 0, 0, 0])
            cases.append((ids, False, "the right length and sum of squares, but repeats"))
        for ids, truth, what in cases:
            value = call(answer, ids, V)
            if getattr(value, "shape", None) in ((), (1,)):  # a tensor or a NumPy bool
                value = value.item()
            if not isinstance(value, bool):
                raise Wrong(f"Return True or False, not {describe(value)}.")
            if truth and not value and not any(call(answer, some, V) for some, _, _ in cases):
                raise Wrong(
                    "You say False to every batch. Do you compare a tensor's entries? They are "
                    "tensors, and no two are one object: ids.tolist() gives numbers."
                )
            if value != truth:
                raise Wrong(f"For ids {ids.tolist()} and V = {V} you say {value}: {what}.")
    return "Nothing left out and nothing twice: both must be asked."


@exercise
def one_hot_bytes(answer):
    """A function (batch, length, V) -> bytes of F.one_hot."""
    primes = torch.tensor([3, 5, 7, 11, 13, 17, 19, 23])  # so that no mistake equals another
    for scale in (1, 1, 1000):
        batch, length, V = primes[torch.randperm(8)[:3]].tolist()
        V = V * scale
        value = number(call(answer, batch, length, V), "The number of bytes")
        truth = F.one_hot(torch.zeros(batch, length, dtype=torch.int64), V).nbytes
        if value == truth:
            continue
        if value == truth / 2:
            raise Wrong("That is float32. F.one_hot returns int64, before any .float().")
        if value == truth / 8:
            raise Wrong("That is the number of numbers. How many bytes does each take?")
        if value == truth / V:
            raise Wrong("That is the bytes of the ids. Each id becomes V numbers.")
        if value == truth / length:
            raise Wrong("You forgot the length: every word of every sentence gets a vector.")
        if value == truth / batch:
            raise Wrong("You forgot the batch: every sentence has its own vectors.")
        raise Wrong(f"For ({batch}, {length}, {V}) you say {value}; F.one_hot takes {truth}.")
    return "Eight bytes a number, V numbers a word."


@exercise
def soft_look_up(answer):
    """A function (logits, E) -> mixtures of the rows of E by softmax over the last axis."""
    E = torch.randn(5, 3)
    for shape in [(5,), (5, 5), (2, 4, 5), (2, 2, 2, 5)]:
        logits = (2 * torch.randn(shape)).requires_grad_()
        value, truth = call(answer, logits, E), (torch.softmax(logits, -1) @ E).detach()
        if same(value, truth, f"The answer for logits of shape {shape}"):
            if not value.requires_grad:
                raise Wrong("The numbers are right, but cut off: no gradient reaches the logits.")
            continue
        if close(value, E[logits.argmax(-1)]):
            raise Wrong("That takes the best row alone. Wanted is the mixture of all rows.")
        if close(value, logits @ E):
            raise Wrong("The scores themselves are no weights. Softmax makes them add up to 1.")
        if close(value, torch.softmax(logits @ E, -1)):
            raise Wrong("You mixed first and softened then. The scores need the softmax.")
        if close(value, logits.exp() @ E) or close(value, logits.sigmoid() @ E):
            raise Wrong("These weights do not add up to 1. Softmax makes them.")
        if any(close(value, torch.softmax(logits, d) @ E) for d in range(logits.dim() - 1)):
            raise Wrong("Your softmax runs over the batch. It should run over the words: dim=-1.")
        raise Wrong(f"For logits of shape {shape} these are not the mixtures of the rows.")
    return "A mixture for every place of the batch, with a gradient for every score."
