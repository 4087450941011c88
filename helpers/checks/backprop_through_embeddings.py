"""Checks of lesson 03: a gradient through a mean, rows that optimizers move, a tied table."""

import inspect
import numbers
from functools import partial

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
import torch.nn.functional as F
from torch import nn

from helpers.checks import (
    Wrong,
    between,
    by_hand,
    call,
    close,
    describe,
    elsewhere,
    exercise,
    filled,
    ids_of,
    kinds,
    recognise,
    same,
)

BACKWARD = {
    "incorrect number of gradients": "backward returns a gradient for each argument of forward "
    "after ctx: None for ids, and then the weight's.",
    "Number of indices": "G has a line for each bag, ids has an id for each word: give each word "
    "its bag's line.",
    "source shape": "G has a line for each bag, ids has an id for each word: give each word its "
    "bag's line.",
    "scalar type": "The weight may be of another dtype than float32: make new tensors of G's, as "
    "G.new_zeros(...) does.",
    "view size is not compatible": "G need not lie in memory as its shape says: use reshape, not "
    "view.",
}


@exercise
def mean_look_up(answer):
    """An autograd.Function (ids, weight) -> mean of each line's rows, with its gradient."""
    if not (inspect.isclass(answer) and issubclass(answer, torch.autograd.Function)):
        raise Wrong(f"An autograd.Function is wanted here, not {describe(answer)}.")
    for ids_dtype, dtype in kinds():
        for n, (V, D, batch, length) in enumerate(_sizes()):
            ids = ids_of(V, (batch, length), ids_dtype)
            if n == 0:
                ids.clamp_(max=V - 2)  # the table may have rows after the batch's largest id
            weight = torch.randn(V, D).to(dtype).requires_grad_()
            G = torch.randn(batch, D).to(dtype)
            if dtype == torch.bfloat16:
                G = G.abs() + 0.5  # nothing cancels, so that rounding stays small
            _mean_and_gradient(answer, ids, weight, G)
    _two_at_once(answer)
    ids, weight = ids_of(5, (3, 2)), torch.randn(5, 4, requires_grad=True)
    G = torch.randn(3, 4)
    if not _gradient_of(answer, ids, weight, G).is_sparse:  # those take their numbers' device
        elsewhere(partial(_gradient_of, _there(answer)), ids, weight, G)
    return "Each word gets its share of its bag's line, and repeats add up."


def _sizes() -> list[tuple[int, int, int, int]]:
    """(V, D, batch, length): many repeats, none nearly, a word a bag, V = D, ends of the range."""
    V = between(5, 7)
    return [
        (V, between(2, 5), 5, 3),
        (between(30, 50), between(2, 5), 3, 4),
        (V, V, between(2, 4), 1),
        (1, between(2, 5), 2, 3),
        (V, 1, 3, 2),
        (V, between(2, 5), 0, 3),
    ]


def _gradient_of(answer, ids, weight, G) -> torch.Tensor:
    return torch.autograd.grad(answer.apply(ids, weight), weight, G)[0]


def _there(answer) -> type:
    """`answer`, its backward run where new tensors are on another device: autograd leaves it."""

    class There(answer):
        @staticmethod
        def backward(ctx, *G):
            with torch.device("meta"):
                return answer.backward(ctx, *G)

    return There


def _mean_and_gradient(answer, ids, weight, G) -> None:
    shape, V = tuple(ids.shape), len(weight)
    before, kept = weight.detach().clone(), ids.clone()
    value = call(lambda i, w: answer.apply(i, w), ids, weight, copy=False, name="forward")
    if weight._version or not torch.equal(weight, before):
        raise Wrong("Forward wrote into the weight. Others read it too.")
    if not torch.equal(ids, kept):
        raise Wrong("Forward wrote into the ids. Others read them too.")
    rows = F.embedding(ids, weight)
    truth = rows.mean(dim=1)
    if isinstance(value, torch.Tensor) and value.shape == rows.shape != truth.shape:
        raise Wrong("Forward returns a row for each word. A bag is the mean of its words' rows.")
    if not same(value, truth, "The output"):
        if close(value, rows.sum(dim=1)):
            raise Wrong("Forward returns the sum of the rows, and not their mean.")
        raise Wrong("Forward should return the mean of each line's rows: a mean over dim=1.")
    given = G.clone()
    back = partial(torch.autograd.grad, value, weight, allow_unused=True)
    (found,) = call(back, given, copy=False, name="backward", hints=BACKWARD)
    if isinstance(found, torch.Tensor) and found.is_sparse:
        found = found.to_dense()
    if given._version or not torch.equal(G, given):
        raise Wrong("You wrote into G. Others may need it: compute from it, or copy it.")
    if found is None:
        raise Wrong("backward gave None for the weight, the second argument of forward.")
    (wanted,) = torch.autograd.grad(truth, weight, G, retain_graph=True)
    if not same(found, wanted, "The gradient"):
        _why_not(found, wanted, ids.long(), G, V)
        raise Wrong(
            f"For ids of shape {shape} and {V} rows the gradient is not the mean's. Work out on "
            "paper what each row gets for ids [[1, 4], [4, 4]]."
        )
    if weight.dtype == torch.float64 and not torch.allclose(found, wanted, rtol=1e-12, atol=1e-14):
        raise Wrong("For float64 the gradient has only float32's digits: stay in G's dtype.")


def _why_not(found, wanted, ids, G, V) -> None:
    batch, length = ids.shape
    flat, lines = ids.flatten(), (G / length).repeat_interleave(length, dim=0)
    counts = flat.bincount(minlength=V).clamp(min=1).unsqueeze(1)
    add = partial(torch.index_add, torch.zeros_like(wanted), 0, flat)
    mistakes = [
        (
            wanted * length,
            "Each word gets the whole line of its bag. How much does a mean of so many words "
            "change with one of them?",
        ),
        (
            wanted * length / max(batch, 1),
            "You divide by the number of bags. A mean divides by its words.",
        ),
        (
            wanted / max(batch, 1),
            "You also divide by the number of bags. G is the gradient of each bag already.",
        ),
        (wanted / length, "You divide by the number of words twice."),
        (wanted / counts, "Repeats are averaged. Their lines should be added up."),
        (-wanted, "The sign is turned. This is the gradient; the step subtracts it."),
        (
            add((G / length).repeat(length, 1)),
            "The shares go to the wrong words: G.repeat(length, 1) puts all bags behind each "
            "other, while ids.flatten() has all words of a bag together. repeat_interleave, or "
            "expand, does too.",
        ),
        (
            _first_words(wanted, ids, G),
            "Only the first word of each bag gets something. All of them were in the mean.",
        ),
        (
            _each_once(wanted, ids, G),
            "A word that stands twice in a bag gets one share of it. It was copied twice.",
        ),
    ]
    recognise(found, mistakes)
    if _keeps_one_line(found, flat, lines):
        raise Wrong("A repeated id keeps one of its lines. All of them should be added up.")
    if _keeps_one_line(found, flat, lines * length):
        raise Wrong("A repeated id keeps one of its lines, and that line is not shared out.")


def _first_words(wanted, ids, G) -> torch.Tensor:
    return torch.zeros_like(wanted).index_add(0, ids[:, 0], G / ids.shape[1])


def _each_once(wanted, ids, G) -> torch.Tensor:
    present = torch.stack([(ids == v).any(dim=1) for v in range(len(wanted))])
    return present.to(G.dtype) @ G / ids.shape[1]


def _keeps_one_line(value, ids, G) -> bool:
    """Whether each row of `value` that was looked up is one of the lines of G meant for it."""
    return all(any(close(value[v], line) for line in G[ids == v]) for v in ids.unique())


def _two_at_once(answer) -> None:
    """Two look-ups before the first backward pass: what is kept in the class is overwritten."""
    first, second = ids_of(6, (3, 2)), ids_of(9, (4, 3))
    weight, other = torch.randn(6, 3, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    value = answer.apply(first, weight)
    answer.apply(second, other)
    truth, G = F.embedding(first, weight).mean(dim=1), torch.randn(3, 3)
    hint = "Two look-ups were made before the first backward pass, and the first has got the "
    hint += "second's numbers. Keep what backward needs in ctx, which each call has for itself."
    try:
        (found,) = torch.autograd.grad(value, weight, G)
    except RuntimeError:
        raise Wrong(hint) from None
    found = found.to_dense() if found.is_sparse else found
    if not close(found, torch.autograd.grad(truth, weight, G)[0]):
        raise Wrong(hint)


@exercise
def second_step(answer):
    """A dictionary from optimizer to the set of rows that change in the second step."""
    optimizers = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
        "SGD(momentum=0.9)": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "SGD(weight_decay=0.1)": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
        "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
        "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    }
    filled(answer, optimizers)
    for name, make in optimizers.items():
        said, truth = _rows(name, answer[name]), _moved(make)
        decays = truth == {1, 2, 3, 4, 5}
        if truth & {2, 3} - said:
            raise Wrong(f"{name}: rows 2 and 3 are looked up in the second batch, and so move.")
        if 0 in said and decays:
            raise Wrong(f"{name}: row 0 is padding, all zeros. To what do zeros decay?")
        if 0 in said:
            raise Wrong(f"{name}: row 0 is padding. Which gradient does padding_idx let through?")
        if 1 in truth - said and not decays:
            raise Wrong(f"{name}: row 1 was looked up in the first batch. Is it forgotten?")
        if truth - said:
            raise Wrong(f"{name}: more rows move than you say. What pulls on all of them?")
        if {4, 5} & said - truth:
            raise Wrong(
                f"{name}: rows 4 and 5 have no gradient, now or before. Only decay would move "
                "them, and there is none here."
            )
        if 1 in said - truth:
            raise Wrong(
                f"{name}: row 1 was looked up before, but does this optimizer step along what it "
                "remembers?"
            )
    return "A gradient now, a remembered one, or weight decay; and zeros stay zeros."


def _rows(name: str, answer: object) -> set:
    """The reader's rows of one optimizer as a set; `Wrong` where they are no rows."""
    hint = f"{name}: a set of rows such as {{2, 3}}, not {describe(answer)}."
    if isinstance(answer, str | bytes):
        raise Wrong(hint)
    try:
        parts = [part.item() if hasattr(part, "item") else part for part in answer]
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(hint) from None
    if any(isinstance(part, bool) or not isinstance(part, numbers.Real) for part in parts):
        raise Wrong(hint)
    said = set(parts)
    if not said <= set(range(6)):
        raise Wrong(f"{name}: the rows are 0 to 5, and you name {sorted(map(str, said))}.")
    return said


def _moved(make) -> set[int]:
    table = nn.Embedding(6, 4, padding_idx=0)
    optimizer = make(table.parameters())
    for ids in ([1, 2, 0, 0], [2, 3, 0, 0]):
        before = table.weight.detach().clone()
        optimizer.zero_grad()
        table(torch.tensor(ids)).sum().backward()
        optimizer.step()
    return set((table.weight != before).any(dim=1).nonzero().flatten().tolist())


@exercise
def tied_gradient(answer):
    """A function (ids, S, E) -> gradient of (S * (E[ids] @ E.T)).sum() with respect to E."""
    lines = "S @ E has a line for each place b, not for each row: it is G. Send its lines home."
    V = between(5, 8)
    sizes = [(V, 3, 6), (30, 4, 5), (V, V, 6), (V, 3, V), (1, 3, 2), (V, 1, 4), (V, 4, 0)]
    for ids_dtype, dtype in kinds():
        for V, D, batch in sizes:
            ids = ids_of(V, (batch,), ids_dtype)
            if batch > 4:
                ids[[1, 3]] = ids[0].item()  # one id stands there three times at least
            E, S = torch.randn(V, D), torch.randn(batch, V)
            if dtype == torch.bfloat16:
                E, S = E.abs() + 0.5, S.abs() + 0.5  # nothing cancels, so rounding stays small
            E, S = E.to(dtype), S.to(dtype)
            value = by_hand(answer, ids, S, E, hints={"must match the size": lines})
            _tied(value, ids.long(), S, E)
    elsewhere(answer, ids_of(6, (5,)), torch.randn(5, 6), torch.randn(6, 4))
    return "One matrix, two uses, and the two gradients add."


def _tied(value, ids, S, E) -> None:
    exact = E.double().requires_grad_()
    (truth,) = torch.autograd.grad((S.double() * (exact[ids] @ exact.T)).sum(), exact)
    truth = truth.to(E.dtype)
    if same(value, truth, "The gradient"):
        if E.dtype == torch.float64 and not torch.allclose(value, truth, rtol=1e-10, atol=1e-10):
            raise Wrong("For float64 the gradient has only float32's digits: stay in E's dtype.")
        return
    H, G = E[ids], S @ E
    as_output, as_input = S.T @ H, torch.zeros_like(E).index_add_(0, ids, G)
    mistakes = [
        (as_output, "That is the scores' term. The look-up's term is missing."),
        (as_input, "That is the look-up's term. The scores' term is missing."),
        (as_output - as_input, "The two terms should be added, not subtracted."),
        (-truth, "The sign is turned. This is the gradient; the step subtracts it."),
        (2 * as_output, "Both terms you have are the scores'. Which gradient reaches H = E[ids]?"),
        (truth / 2, "That is the mean of the two terms. The gradients of two uses add up."),
    ]
    if as_output.shape == G.shape:  # as many places as rows
        mistakes.append((as_output + G, _lines_home(len(ids))))
    recognise(value, mistakes)
    if _keeps_one_line(value - as_output, ids, G):
        raise Wrong("Both terms are there, but a repeated id keeps one line of G: add them up.")
    raise Wrong("Not yet the sum of both terms. For the look-up's: which gradient reaches H?")


def _lines_home(places: int) -> str:
    """The hint for G added as it is, which fits where there are as many places as rows."""
    return (
        f"Line b of S @ E belongs to the row at place b, not to row b (here are {places} places "
        "and as many rows): it is G. Send its lines home."
    )
