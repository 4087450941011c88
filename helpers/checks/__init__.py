"""The checks behind the exercises: one module a lesson, one function an exercise.

A check takes the reader's answer, prints one of three states and returns them as a `Result`.
It compares with PyTorch's own answer on fresh random inputs of fresh sizes, and leaves the reader's
random state, autograd mode, default dtype and device as they were. Whatever error an answer raises
becomes a hint, unless the environment variable NN_EMBEDDING_CHECKS_RAISE is set, as the tests do.
An answer that never ends is stopped by Jupyter's stop button, which ends the check with a word and
no traceback.
"""

import contextlib
import dis
import functools
import inspect
import io
import math
import numbers
import os
import random
import secrets
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted", "wrong", "right"
RAISE = "NN_EMBEDDING_CHECKS_RAISE"
COARSE = {torch.bfloat16: 3e-2, torch.float16: 3e-3}  # dtypes, and the error that rounding makes


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
            _as_it_was(),
        ):
            torch.default_generator.manual_seed(fresh_seed())
            return Result(RIGHT, judge(answer))
    except Wrong as wrong:
        return Result(WRONG, str(wrong))
    except KeyboardInterrupt:
        return Result(WRONG, "You stopped it while your answer ran. Does a loop in it never end?")
    except (Exception, SystemExit) as error:
        # A check must not end in a traceback whatever the answer is: an object whose
        # comparison raises is as good an answer as any.
        return Result(WRONG, f"Your answer could not be checked: {_first_line(error)}")


def fresh_seed() -> int:
    """A seed that nobody can guess, from 0 to 2**63 - 1; what a check draws begins with it."""
    return secrets.randbits(63)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Begin with autograd on and float32; put back what the reader had, whatever an answer sets."""
    grad, dtype, device = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
    )
    threads, numpys, pythons = torch.get_num_threads(), np.random.get_state(), random.getstate()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        np.random.set_state(numpys)
        random.setstate(pythons)


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
            i.argval in (None, ...) for i in code if i.opname in ("LOAD_CONST", "RETURN_CONST")
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
    return called(function, *inputs, copy=copy, name=name, hints=hints)[0]


def called(
    function: object,
    *inputs: object,
    copy: bool = True,
    name: str = "your function",
    hints: Mapping[str, str] = MappingProxyType({}),
) -> tuple[object, list[object]]:
    """As `call`; besides the answer's value the copies that it was given, to ask for gradients."""
    if not callable(function):
        raise Wrong(f"A function is wanted here, not {describe(function)}.")
    given = [_copy(i) if copy else i for i in inputs]
    what = ", ".join(map(describe, inputs))
    grad = torch.is_grad_enabled()
    try:
        value = function(*given)
    except (Exception, SystemExit) as error:
        for part, hint in hints.items():
            if part in str(error):
                raise Wrong(hint) from None
        raise Wrong(f"Given {what}, {name} raised {_first_line(error)}") from None
    if torch.is_grad_enabled() != grad:
        torch.set_grad_enabled(grad)
        raise Wrong(
            f"{name.capitalize()} switched autograd {'on' if not grad else 'off'} and left it so, "
            "for all that is run afterwards. Use `with torch.no_grad():`, or nothing."
        )
    for mine, before in zip(given, inputs, strict=True):
        if copy and isinstance(before, torch.Tensor) and not _untouched(mine, before):
            raise Wrong(f"{name.capitalize()} wrote into its argument, {describe(before)}.")
    if value is None:
        raise Wrong(f"{name.capitalize()} returned None. Does it end in a return?")
    return value, given


def _copy(value: object) -> object:
    """A tensor's copy that can be told apart from the tensor, requiring a gradient as it does."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _untouched(mine: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether `mine` was never written to, not even to be put back (.data is not seen)."""
    same_form = mine.shape == before.shape and mine.requires_grad == before.requires_grad
    return same_form and mine._version == 0 and torch.equal(mine, before)


def between(low: int, high: int) -> int:
    """A random whole number from `low` to `high`, both included: a size that nobody can guess."""
    return int(torch.randint(low, high + 1, ()))


def shapes(axes: Iterable[int] = (0, 1, 2, 3)) -> list[tuple[int, ...]]:
    """Shapes of ids, the usual ones first and then the ends of the range: a single id, none.

    Sizes are drawn anew at each call; `axes` says which numbers of axes may come.
    """
    a, b, c = (between(2, 5) for _ in range(3))
    found = [(a,), (a, b), (), (1,), (1, b), (a, 1), (a, b, c), (0,), (0, b)]
    return [shape for shape in found if len(shape) in set(axes)]


def ids_of(V: int, shape: Iterable[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Random ids from 0 to V - 1, of that shape; the last id, V - 1, is among them if any is."""
    ids = torch.randint(V, tuple(shape), dtype=dtype)
    if ids.numel():
        ids.view(-1)[between(0, ids.numel() - 1)] = V - 1
    return ids


def kinds() -> list[tuple[torch.dtype, torch.dtype]]:
    """(dtype of ids, dtype of numbers) that an answer should work with."""
    return [
        (torch.int64, torch.float32),
        (torch.int32, torch.float32),
        (torch.int64, torch.float64),
        (torch.int64, torch.bfloat16),
    ]


def gradient(value: object, of: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """The gradient that `value`, given the gradient `upstream`, sends to the tensor `of`.

    `Wrong` where none arrives: it was cut off by detach(), .data, no_grad() or a copy of numbers.
    """
    cut = "No gradient gets back to the weight through your answer. Is there a detach(), .data, "
    cut += "no_grad() or .tolist() on the way?"
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        raise Wrong(cut)
    (found,) = torch.autograd.grad(value, of, upstream, allow_unused=True, retain_graph=True)
    if found is None:
        raise Wrong(cut)
    return found.to_dense() if found.is_sparse else found


def same_gradient(
    value: object, truth: torch.Tensor, value_of: torch.Tensor, truth_of: torch.Tensor
) -> None:
    """`Wrong` unless `value` sends the same gradient to `value_of` as `truth` to `truth_of`.

    Both get the same random gradient from above, so that a part that is cut off, or multiplied by
    zero, shows.
    """
    if not truth.numel():
        return  # nothing can carry a gradient here
    upstream = torch.randn_like(truth)
    if truth.dtype in COARSE:  # sums of small whole numbers are exact there, in any order
        upstream = torch.randint_like(truth, -2, 3)
    found, wanted = gradient(value, value_of, upstream), gradient(truth, truth_of, upstream)
    if not close(found, wanted):
        raise Wrong(
            "The values are right, but the gradient that gets back to the weight is another: part "
            "of it is cut off, scaled or added twice."
        )


def elsewhere(function: object, *inputs: object, name: str = "your function") -> object:
    """What the function returns where the default device is not that of the inputs.

    It stands for a GPU: a tensor made without device= (as torch.zeros(3)) is then on another device
    than the inputs. `Wrong` where that shows.
    """
    hint = (
        "Here a new tensor is not on the inputs' device by itself, as with inputs on a GPU. Make "
    )
    hint += "it beside them: device=ids.device, or ids.new_zeros(...), or zeros_like."
    given = [_copy(i) for i in inputs]
    try:
        with torch.device("meta"):
            value = function(*given)
    except (Exception, SystemExit):
        raise Wrong(hint) from None
    if isinstance(value, torch.Tensor) and value.is_meta:
        raise Wrong(hint)
    return value


@contextlib.contextmanager
def switched_off(owner: object, name: str, hint: str) -> Iterator[None]:
    """Make the function `name` of `owner`, a module or class, raise with `hint` when called.

    Calls by PyTorch itself go on, such as those that print a tensor.
    """
    own = getattr(owner, name)

    def refuse(*args, **kwargs):
        if _by_pytorch(sys._getframe(1)):
            return own(*args, **kwargs)
        raise TypeError(hint)

    with mock.patch.object(owner, name, refuse):
        yield


class NoIndexing(TorchFunctionMode):
    """Inside of it indexing a tensor by [...] raises with `hint`; PyTorch's own goes on.

    A mode, and no patch of torch.Tensor: a class keeps traces of a patched __getitem__.
    """

    def __init__(self, hint: str) -> None:
        super().__init__()
        self.hint = hint

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__getitem__ and not _by_pytorch(sys._getframe(1)):
            raise TypeError(self.hint)
        return function(*args, **(kwargs or {}))


def _by_pytorch(frame: FrameType) -> bool:
    """Whether the code of this frame is PyTorch's own."""
    return frame.f_globals.get("__name__", "").startswith("torch")


def by_hand(
    function: object, *inputs: object, hints: Mapping[str, str] = MappingProxyType({})
) -> object:
    """What `call` returns with autograd switched off, for gradients that are asked for by hand."""
    hint = "Autograd is switched off here: compute the gradient by hand, as the exercise asks."

    def refuse(*args, **kwargs):
        raise TypeError(hint)

    # All of autograd's functions come through one of the two: backwards, or forwards.
    doors = ("torch.autograd._engine_run_backward", "torch.autograd.forward_ad.make_dual")
    with contextlib.ExitStack() as closed, torch.no_grad():
        for door in doors:
            closed.enter_context(mock.patch(door, refuse))
        return call(function, *inputs, hints={"does not require grad": hint, hint: hint, **hints})


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
    """Whether two tensors have the same shape and dtype and equal values, numbers to rounding."""
    alike = value.shape == other.shape and value.dtype == other.dtype
    value, other = value.detach(), other.detach()
    if not (value.is_floating_point() or value.is_complex()):
        return alike and torch.equal(value, other)
    error = COARSE.get(value.dtype, 1e-4)
    return alike and torch.allclose(value, other, error, error / 10, equal_nan=True)


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
    if isinstance(value, torch.Tensor | np.ndarray) and math.prod(value.shape) == 1:
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
