"""Checks of lesson 03: a gradient through a mean, rows that optimizers move, a tied table."""

import contextlib
import inspect
import numbers

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves

from helpers.checks import (
    COARSE,
    Wrong,
    between,
    by_hand,
    call,
    close,
    describe,
    exercise,
    filled,
    ids_of,
    kinds,
    recognise,
    same,
)

KINDS = [*kinds(), (torch.int64, torch.float16)]
EACH_WORD = "G has a line for each bag, ids has an id for each word: give each word its bag's line."
BACKWARD = {
    "Number of indices": EACH_WORD,
    "source shape": EACH_WORD,
    "supposed to be a vector": "index_add_ wants ids without axes: flatten the ids.",
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
    for ids_dtype, dtype in KINDS:
        for n, (V, D, batch, length) in enumerate(_sizes()):
            if dtype in COARSE:  # sums of sixteenths up to 256 of them are exact
                batch, length = min(batch, 8), 1 << (length - 1).bit_length()
            ids = ids_of(V, (batch, length)) if n else _usual(V, batch, length)
            weight = _random(V, D, dtype=dtype).requires_grad_()
            G, other = _random(2, batch, D, dtype=dtype)
            ids = ids.to(ids_dtype, copy=True)  # a copy into which nothing was written
            _mean_and_gradient(answer, ids, weight, G.clone(), other)
    _many_at_once(answer)
    ids, weight = ids_of(5, (3, 2)), torch.randn(5, 4, requires_grad=True)
    away = _spied(answer, [], _Away())
    _elsewhere(lambda G: torch.autograd.grad(away.apply(ids, weight), weight, G)[0], weight[:3] + 1)
    return "Each word gets its share of its bag's line, and repeats add up."


def _sizes() -> list[tuple[int, int, int, int]]:
    """(V, D, batch, length): the usual ones, many words, a word a bag, V = D, ends of the range.

    In the first no two of the numbers that one may divide by are equal.
    """
    V = between(5, 7)
    return [
        (between(11, 14), between(4, 6), 7, 3),
        (between(30, 50), between(2, 5), between(20, 40), between(9, 14)),
        (V, V, between(2, 4), 1),
        (V, between(2, 5), 1, between(2, 6)),
        (1, between(2, 5), 2, 3),
        (V, 1, 3, 2),
        (V, between(2, 5), 0, 3),
    ]


def _usual(V: int, batch: int, length: int) -> torch.Tensor:
    """Ids with repeats, also in one bag; all rows but the last of the table are among them."""
    words = torch.randperm(V - 1)
    more = torch.randint(V - 1, (batch * length - V,))
    return torch.cat([words[:1], words, more]).view(batch, length)


def _random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Random numbers, whole ones where rounding is coarse: there sums are exact in any order."""
    if dtype in COARSE:
        return torch.randint(-2, 3, shape).to(dtype)
    return torch.randn(shape, dtype=dtype)


class _Away(TorchFunctionMode):
    """New tensors are on another device than the inputs, as with inputs on a GPU.

    All but single numbers, which go with any device, and those made with the inputs' device=.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tree_leaves((args[1:], kwargs))  # a device that is written down is a string
        beside = any(isinstance(part, torch.Tensor | torch.device) for part in given)
        if function in (torch.Tensor.to, torch.Tensor.type_as) and args[0].is_meta and beside:
            args = (torch.zeros(args[0].shape, dtype=args[0].dtype), *args[1:])  # it comes back
        value = function(*args, **kwargs)
        beside = beside or any(isinstance(part, torch.Tensor) for part in args)
        alone = function in _device_constructors() and not beside
        return value.to("meta") if alone and value.dim() else value


def _elsewhere(function, *inputs) -> None:
    """`Wrong` where `function` makes a tensor that would not be on its inputs' device."""
    hint = "Here a new tensor is not on the inputs' device by itself, as with inputs on a GPU. "
    hint += "Make it beside them: G.new_zeros(...), zeros_like, or device=G.device."
    try:
        with _Away():
            value = function(*(i.detach().clone() for i in inputs))
    except (Exception, SystemExit):
        raise Wrong(hint) from None
    if value.is_meta:
        raise Wrong(hint)


def _spied(answer: type, seen: list, mode: contextlib.AbstractContextManager) -> type:
    """`answer`, but what its backward returns is put into `seen`, and it runs within `mode`."""
    name = "backward" if answer.vjp is torch.autograd.Function.vjp else "vjp"  # either will do

    def backward(ctx, *G):
        with mode:
            value = getattr(answer, name)(ctx, *G)
        seen.append(value)
        return value if isinstance(value, tuple) and len(value) == 2 else (None, None)

    return type(answer.__name__, (answer,), {name: staticmethod(backward)})


def _mean_and_gradient(answer, ids, weight, G, other) -> None:
    given = {"ids": ids, "the weight": weight, "G": G}
    before = {name: tensor.detach().clone() for name, tensor in given.items()}
    seen = []
    spied = _spied(answer, seen, contextlib.nullcontext())
    value = call(spied.apply, ids, weight, copy=False, name="forward")
    _unwritten(given, before, "forward")
    rows = F.embedding(ids, weight)
    truth = rows.mean(dim=1)
    if isinstance(value, torch.Tensor) and value.shape == rows.shape != truth.shape:
        raise Wrong("Forward returns a row for each word. A bag is the mean of its words' rows.")
    if not same(value, truth, "The output"):
        if close(value, rows.sum(dim=1)):
            raise Wrong("Forward returns the sum of the rows, and not their mean.")
        raise Wrong("Forward should return the mean of each line's rows: a mean over dim=1.")
    _digits(value, truth, "the output")

    def back(G):
        return torch.autograd.grad(value, weight, G, allow_unused=True, retain_graph=True)

    def wanted(G):
        return torch.autograd.grad(truth, weight, G, retain_graph=True)[0]

    (found,) = call(back, G, copy=False, name="backward", hints=BACKWARD)
    _unwritten(given, before, "backward")
    _form(seen[0])
    first = _dense(found).clone()
    if not same(first, wanted(G), "The gradient"):
        _why_not(first, wanted(G), ids.long(), G)
    _digits(first, wanted(G), "the gradient")
    (again,) = call(back, other, copy=False, name="backward", hints=BACKWARD)
    if not (close(_dense(again), wanted(other)) and torch.equal(_dense(found), first)):
        raise Wrong(
            "Backward ran twice, and one gradient got into the other: both were written into one "
            "tensor. Make a new dE in each backward."
        )


def _dense(found: torch.Tensor) -> torch.Tensor:
    return found.to_dense() if found.is_sparse else found


def _unwritten(given: dict, before: dict, where: str) -> None:
    for name, tensor in given.items():
        if tensor._version or not torch.equal(tensor, before[name]):
            raise Wrong(f"In {where} you wrote into {name}. Others need it too: use a copy of it.")


def _digits(value, truth, what: str) -> None:
    if truth.dtype == torch.float64 and not torch.allclose(value, truth, rtol=1e-12, atol=1e-12):
        raise Wrong(f"For float64 {what} has only float32's digits: stay in the input's dtype.")


def _form(returned: object) -> None:
    """`Wrong` unless backward returned None and a gradient."""
    if returned is None:
        raise Wrong("backward is still to be written, or it has no return.")
    if isinstance(returned, list):
        raise Wrong("backward returned a list. Return the gradients as a tuple: None, dE.")
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise Wrong("backward returns a gradient for each argument after ctx: None for ids, dE.")
    if returned[1] is None:
        raise Wrong("backward gave None for the weight, the second argument of forward.")
    if returned[0] is not None:
        raise Wrong("Ids are names and have no gradient: backward returns None for them.")


def _why_not(found, wanted, ids, G) -> None:
    """Raise `Wrong` with what seems to be wrong with the gradient `found`."""
    (batch, length), (V, D) = ids.shape, wanted.shape
    if not batch:
        raise Wrong("In an empty batch no bag changes no row: the gradient is zeros.")
    flat, lines = ids.flatten(), (G / length).repeat_interleave(length, dim=0)
    counts = flat.bincount(minlength=V).clamp(min=1).unsqueeze(1)
    distinct = torch.tensor([len(line.unique()) for line in ids]).unsqueeze(1)
    whole = wanted * length

    def add(ids, lines):
        return torch.zeros_like(wanted).index_add(0, ids, lines.to(wanted.dtype))

    of_distinct = "You divide by the number of different words. A mean divides by all its words."
    mistakes = [
        (
            whole,
            "Each word gets the whole line of its bag. How much does a mean of so many words "
            "change with one of them?",
        ),
        (whole / batch, "You divide by the number of bags. A mean divides by its words."),
        (wanted / batch, "You also divide by the number of bags. G is each bag's own already."),
        (wanted / length, "You divide by the number of words twice."),
        (whole / D, "You divide by D, the numbers of a row. A mean divides by its words."),
        (whole / V, "You divide by V, the rows of the table. A mean divides by its words."),
        (whole / len(ids.unique()), of_distinct),
        (add(flat, (G / distinct).repeat_interleave(length, dim=0)), of_distinct),
        (wanted / counts, "Repeats are averaged. Their lines should be added up."),
        (-wanted, "The sign is turned. This is the gradient; the step subtracts it."),
        (
            add(flat, (G / length).repeat(length, 1)),
            "The shares go to the wrong words: G.repeat(length, 1) puts all bags behind each "
            "other, while ids.flatten() has all words of a bag together. repeat_interleave, or "
            "expand, does too.",
        ),
        (
            add(ids.T.flatten(), lines),
            "The shares go to the wrong words: ids.T.flatten() has the first words of all bags "
            "together, your lines have a bag together. Leave out the .T.",
        ),
        (add(ids[:, 0], G / length), "Only a bag's first word gets something, of all in the mean."),
        (
            torch.stack([(ids == v).any(dim=1) for v in range(V)]).to(G.dtype) @ G / length,
            "A word that stands twice in a bag gets one share of it. It was copied twice.",
        ),
    ]
    recognise(found, mistakes)
    if _keeps_one_line(found, flat, lines):
        raise Wrong("A repeated id keeps one of its lines. All of them should be added up.")
    if _keeps_one_line(found, flat, lines * length):
        raise Wrong("A repeated id keeps one of its lines, and that line is not shared out.")
    raise Wrong(
        f"For ids of shape {(batch, length)}, {V} rows and {G.dtype} the gradient is not the "
        "mean's. Work out on paper what each row gets for ids [[1, 4], [4, 4]]."
    )


def _keeps_one_line(value, ids, G) -> bool:
    """Whether each row of `value` that was looked up is one of the lines of G meant for it."""
    return all(any(close(value[v], line) for line in G[ids == v]) for v in ids.unique())


def _many_at_once(answer) -> None:
    """Look-ups before the first backward pass: what is kept in the class is overwritten."""
    ids, batches = ids_of(6, (3, 2)), []
    other, more = (ids + 1) % 6, ids_of(9, (4, 3))  # two agree in all sizes
    for some, V, D in [(ids, 6, 3), (other, 6, 3), (other, 9, 5), (more, 9, 5)]:
        weight = torch.randn(V, D, requires_grad=True)
        batches.append((answer.apply(some, weight), F.embedding(some, weight).mean(1), weight))
    for value, truth, weight in batches:
        G = torch.randn_like(truth)
        (wanted,) = torch.autograd.grad(truth, weight, G)
        try:
            right = close(_dense(torch.autograd.grad(value, weight, G)[0]), wanted)
        except Exception:
            right = False
        if not right:
            raise Wrong(
                "Look-ups were made before the first backward pass, and one has got another's "
                "numbers. Keep what backward needs in ctx, which each call has for itself."
            )


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
    if len(parts) == 6 and all(part in (0, 1) for part in parts):  # false and true as well
        raise Wrong(f"{name}: that is a mask, name the rows: a set such as {{2, 3}}.")
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
    lines = "One term has a line for each place, the gradient a line for each row: send it home."
    columns = "The look-up's G must have D columns, and S has V: G = S E."
    hints = {"non-singleton dimension 1": columns, "must match the size": lines}
    hints |= {"source shape": columns, "source tensor shape": columns}
    V = between(5, 8)
    sizes = [(V, 3, 9), (40, 4, 25), (V, V, 6), (V, 3, V), (1, 3, 2), (V, 1, 4), (V, 4, 0)]
    for ids_dtype, dtype in KINDS:
        for V, D, batch in sizes:
            ids = ids_of(V, (batch,), ids_dtype)
            if batch > 4:
                ids[[1, 3]] = ids[0].item()  # one id stands there three times at least
            E, S = _random(V, D, dtype=dtype), _random(batch, V, dtype=dtype)
            _tied(by_hand(answer, ids, S, E, hints=hints), ids.long(), S, E)
    _elsewhere(answer, ids_of(6, (5,)), torch.randn(5, 6), torch.randn(6, 4))
    return "One matrix, two uses, and the two gradients add."


def _tied(value, ids, S, E) -> None:
    exact = E.double().requires_grad_()
    (truth,) = torch.autograd.grad((S.double() * (exact[ids] @ exact.T)).sum(), exact)
    truth = truth.to(E.dtype)
    H, G = E[ids], S @ E
    if isinstance(value, torch.Tensor) and len(ids) and close(value, G):
        raise Wrong("That is G. Send its lines home, and the scores' term is missing.")
    if same(value, truth, "The gradient"):
        return _digits(value, truth, "the gradient")
    if not len(ids):
        raise Wrong("In an empty batch no place changes no row: the gradient is zeros.")

    def add(lines):
        return torch.zeros_like(E).index_add_(0, ids, lines)

    as_output, as_input = S.T @ H, add(G)
    counts = ids.bincount(minlength=len(E)).clamp(min=1).unsqueeze(1)
    averaged = "Lines of G for one row are averaged. They should be added up."
    mistakes = [
        (as_output, "That is the scores' term. The look-up's term is missing."),
        (as_input, "That is the look-up's term. The scores' term is missing."),
        (as_output - as_input, "The two terms should be added, not subtracted."),
        (-truth, "The sign is turned. This is the gradient; the step subtracts it."),
        (2 * as_output, "Both terms you have are the scores'. Which gradient reaches H = E[ids]?"),
        (2 * as_input, "Both terms you have are the look-up's. The scores use all of E: Sᵀ H."),
        (truth / 2, "That is the mean of the two terms. The gradients of two uses add up."),
        (as_output + as_input / counts, averaged),
        (truth / counts, averaged),
    ]
    if as_output.shape == G.shape:  # as many places as rows
        line = f"Line b of S @ E belongs to the row at place b, not to row b (here are {len(ids)} "
        line += "places and as many rows): it is G. Send its lines home."
        mistakes.append((as_output + G, line))
    if S.shape == G.shape:  # as many columns as rows
        mistakes.append((as_output + add(S), "You sent S home. The look-up's G is another: S E."))
    recognise(value, mistakes)
    if _keeps_one_line(value - as_output, ids, G):
        raise Wrong("Both terms are there, but a repeated id keeps one line of G: add them up.")
    raise Wrong("Not yet the sum of both terms. For the look-up's: which gradient reaches H?")
