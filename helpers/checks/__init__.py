"""The checks behind the exercises: one module a lesson, one function an exercise.

A check takes the reader's answer, prints one of three states and returns them as a `Result`.
It compares with PyTorch's own answer on fresh random inputs, leaves the reader's random state
as it was, and never raises, unless the environment variable NN_EMBEDDING_CHECKS_RAISE is set,
as the tests do. An answer that never ends is stopped by Jupyter's stop button, which ends the
check with a word and no traceback.
"""

import contextlib
import dis
import functools
import inspect
import io
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted", "wrong", "right"
RAISE = "NN_EMBEDDING_CHECKS_RAISE"


@dataclass(frozen=True)
class Result:
    """What a check found: `state` is "not attempted", "wrong" or "right"; `hint` says more."""

    state: str
    hint: str

    def _ipython_display_(self) -> None:
        """Show nothing: the check has printed its words already."""


class Wrong(Exception):  # noqa: N818 - it is a state, not a failure
    """Raised inside a check: the answer is wrong, and this is the hint that fits."""


def exercise(judge: Callable[..., str]) -> Callable[..., Result]:
    """Make a check of a function that returns praise for a right answer and raises `Wrong` else.

    The answer `...`, a dictionary of nothing else, and a function or a class whose body or methods
    hold nothing else count as not attempted: they are the stubs as they stand.
    """

    @functools.wraps(judge)
    def check(answer: object = ...) -> Result:
        result = _judged(judge, answer)
        lead = {NOT_ATTEMPTED: "Not attempted yet.", WRONG: "Not right yet.", RIGHT: "Right."}
        print(lead[result.state], result.hint)
        if result.state != RIGHT and os.environ.get(RAISE):
            raise AssertionError(f"{judge.__name__}: {result.state}: {result.hint}")
        return result

    return check


def _judged(judge: Callable[..., str], answer: object) -> Result:
    try:
        if _is_stub(answer):
            return Result(NOT_ATTEMPTED, "Replace the dots with your answer, then run this cell.")
        with (
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
            torch.random.fork_rng(devices=[]),
        ):
            torch.seed()
            return Result(RIGHT, judge(answer))
    except Wrong as wrong:
        return Result(WRONG, str(wrong))
    except KeyboardInterrupt:
        return Result(WRONG, "You stopped it while your answer ran. Does a loop in it never end?")
    except (Exception, SystemExit) as error:
        # A check must not end in a traceback whatever the answer is: an object whose
        # comparison raises is as good an answer as any.
        return Result(WRONG, f"Your answer could not be checked: {_first_line(error)}")


def _is_stub(answer: object) -> bool:
    if answer is ...:
        return True
    if isinstance(answer, dict) and answer:
        return all(value is ... for value in answer.values())
    if inspect.isclass(answer):
        methods = [m.__func__ if isinstance(m, staticmethod) else m for m in vars(answer).values()]
        methods = [m for m in methods if inspect.isfunction(m)]
        return bool(methods) and all(map(_is_stub, methods))
    if inspect.isfunction(answer):
        code = [i for i in dis.get_instructions(answer) if i.opname not in ("RESUME", "NOP")]
        return all(i.opname.startswith(("LOAD_CONST", "RETURN")) for i in code) and all(
            i.argval is None for i in code if i.opname in ("LOAD_CONST", "RETURN_CONST")
        )
    return False


def call(
    function: object,
    *inputs: object,
    copy: bool = True,
    name: str = "your function",
    hints: Mapping[str, str] = MappingProxyType({}),
) -> object:
    """What the reader's function returns for copies of `inputs`; `Wrong` where it fails.

    It also fails where it writes into a copy. With `copy=False` it gets the inputs themselves, and
    what it does to them is the caller's to judge.
    `hints` maps a part of an error's message to what a reader should be told in its place.
    """
    if not callable(function):
        raise Wrong(f"A function is wanted here, not {describe(function)}.")
    given = [i.clone() if copy and isinstance(i, torch.Tensor) else i for i in inputs]
    try:
        value = function(*given)
    except (Exception, SystemExit) as error:
        for part, hint in hints.items():
            if part in str(error):
                raise Wrong(hint) from None
        what = ", ".join(map(describe, inputs))
        raise Wrong(f"Given {what}, {name} raised {_first_line(error)}") from None
    for mine, before in zip(given, inputs, strict=True):
        if copy and isinstance(before, torch.Tensor) and not torch.equal(mine, before):
            raise Wrong(f"{name.capitalize()} wrote into its argument, {describe(before)}.")
    if value is None:
        raise Wrong(f"{name.capitalize()} returned None. Does it end in a return?")
    return value


def by_hand(
    function: object, *inputs: object, hints: Mapping[str, str] = MappingProxyType({})
) -> object:
    """What `call` returns with autograd switched off, for gradients that are asked for by hand."""
    hint = "Autograd is switched off here: compute the gradient by hand, as the exercise asks."
    with torch.no_grad():
        return call(function, *inputs, hints={"does not require grad": hint, **hints})


class Largest(TorchDispatchMode):
    """Remembers the shape of the largest tensor that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = torch.Size()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, torch.Tensor) and part.numel() > self.shape.numel():
                self.shape = part.shape
        return result


def same(value: object, truth: torch.Tensor, what: str = "The result") -> bool:
    """Whether `value` equals `truth`, to rounding; `Wrong` where type, shape or dtype differ."""
    if not isinstance(value, torch.Tensor):
        raise Wrong(f"{what} should be a tensor, not {describe(value)}.")
    if value.shape != truth.shape:
        raise Wrong(f"{what} has shape {tuple(value.shape)}; {tuple(truth.shape)} is wanted.")
    if value.dtype != truth.dtype:
        raise Wrong(f"{what} has dtype {value.dtype}; {truth.dtype} is wanted.")
    return close(value, truth)


def close(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same shape and dtype and equal values, to rounding."""
    alike = value.shape == other.shape and value.dtype == other.dtype
    return alike and torch.allclose(value.detach(), other.detach(), rtol=1e-4, atol=1e-5)


def recognise(
    value: object,
    mistakes: Iterable[tuple[object, str]],
    near: Callable[[object, object], bool] = close,
) -> None:
    """`Wrong` with the hint of the first of the (result, hint) pairs that `value` is near to."""
    for result, hint in mistakes:
        if near(value, result):
            raise Wrong(hint)


def number(value: object, what: str = "The answer") -> numbers.Real:
    """`value` if it is a number, or a tensor's only element. `Wrong` for anything else."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # NumPy's numbers are
        raise Wrong(f"{what} should be a number, not {describe(value)}.")
    return value


def filled(answer: object, wanted: Iterable[str]) -> None:
    """`Wrong` unless the answer is a dictionary with an entry for each of `wanted`."""
    if not isinstance(answer, dict):
        raise Wrong(f"Fill in the dictionary that is there; this is {describe(answer)}.")
    missing = [f'"{name}"' for name in wanted if answer.get(name, ...) is ...]
    if missing:
        raise Wrong(f"Still to be filled in: {', '.join(missing)}.")


def describe(value: object) -> str:
    """A few words on a value: a tensor's dtype and shape, a list's number of tensors, or a type's
    name and a short repr.
    """
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}, shape {tuple(value.shape)}"
    if type(value) in (list, tuple) and value and all(isinstance(v, torch.Tensor) for v in value):
        return f"a {type(value).__name__} of {len(value)} tensor{'s' * (len(value) > 1)}"
    name, text = type(value).__name__, " ".join(repr(value).split())
    text = text if len(text) <= 40 else text[:37] + "..."
    return text if value is None or text.startswith(name) else f"{name} {text}"


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {line if len(line) <= 160 else line[:157] + '...'}"
