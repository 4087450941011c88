"""Checks of lesson 11: one rank's answer, a plan, few bits, what to recommend."""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.checks import (
    Wrong,
    between,
    call,
    called,
    close,
    describe,
    elsewhere,
    exercise,
    gradient,
    ids_of,
    kinds,
    number,
    recognise,
    same,
    shapes,
)


def _near(value: float, other: float) -> bool:
    return abs(value - other) <= 1e-6 * max(abs(value), abs(other))


# --- One rank's answer ------------------------------------------------------------------------

ROW_0 = "Row 0 of the shard is row `first` of the table."
PAST_THE_END = "The id `first + len(shard)` is the next rank's: this rank's last is one less."


@exercise
def shard_rows(answer):
    """A function (shard, first, ids) -> the shard's rows of ids, zeros for the others."""
    N, D = between(2, 4), between(6, 9)  # more columns than any axis of ids has places
    V = N * between(3, 6) + between(1, N - 1)  # N does not divide it
    for shape in shapes():
        _ranks(answer, torch.randn(V, D), N, ids_of(V, shape))
    ends = [(2 * N, N, D), (1, 3, D), (N + 1, 2 * N + 1, 3), (V, 1, D), (V, N, 1), (V, V, 2)]
    for rows, ranks, columns in ends:
        _ranks(answer, torch.randn(rows, columns), ranks, ids_of(rows, (between(2, 9),)))
    for ids_dtype, dtype in kinds():
        weight = torch.randn(V, D).to(dtype)
        _ranks(answer, weight, 3, ids_of(V, (4, 3), ids_dtype))
    _not_by_product(answer)
    _far_down(answer)
    elsewhere(answer, torch.randn(4, 3), 4, torch.tensor([1, 4, 7, 9]))
    return "Each rank says what it has, and the sum is the table."


def _ranks(answer: object, weight: torch.Tensor, N: int, ids: torch.Tensor) -> None:
    """Ask each of N ranks, of which the last ones may hold no row."""
    size = math.ceil(len(weight) / N)
    for rank in range(N):
        first = min(rank * size, len(weight))
        _one_rank(answer, weight[first : first + size], first, ids, weight)


def _one_rank(
    answer: object, rows: torch.Tensor, first: int, ids: torch.Tensor, weight: torch.Tensor
) -> None:
    shard = rows.clone().requires_grad_()
    hints = dict.fromkeys(
        ("out of range", "out of bounds", "axis dim", "ZeroDivision"),
        _why_it_raised(answer, shard, first, ids),
    )
    hints["dtypes match"] = f"The shard is {shard.dtype}: make the zeros in that dtype, too."
    hints["must match the size"] = "The mask has the shape of ids. Give it an axis more at its end."
    value, given = called(answer, shard, first, ids, hints=hints)
    wanted = (*ids.shape, shard.shape[1])
    if not isinstance(value, torch.Tensor) or value.shape != wanted:
        fewer = isinstance(value, torch.Tensor) and value.dim() == 2 and len(value) < ids.numel()
        more = " Ids of other ranks get a row too: of zeros." if fewer else ""
        raise Wrong(f"Ids of shape {tuple(ids.shape)} gave {describe(value)}.{more}")
    mine = (ids >= first) & (ids < first + len(shard))
    truth = weight[ids.long()].where(mine.unsqueeze(-1), 0)
    right = same(value, truth, "The answer")
    if not close(value[mine], truth[mine]):
        where = f" {ROW_0}" if first else ""
        own = torch.arange(first, first + len(shard))
        wrong = call(answer, shard, first, own) != rows
        if len(own) > 1 and wrong[0].all() and not wrong[1:].any():
            where = " Only `first` itself gets none: it is this rank's, too."
        raise Wrong(f"Ids of this rank do not get their rows.{where}")
    if not right:
        wrong = (value != truth).any(dim=-1)
        past = first + len(shard)
        only = (ids[wrong] == past).all() and not _raises(answer, shard, first, ids * 0 + past + 1)
        if only and not call(answer, shard, first, ids * 0 + past + 1).any():
            raise Wrong(PAST_THE_END)
        raise Wrong("Ids of other ranks get a row that is not zero, and the sum counts it.")
    upstream = torch.randint_like(truth, -3, 4)  # sums of small whole numbers are exact
    if mine.any():
        found = gradient(value, given[0], upstream)
        expected = torch.zeros_like(rows).index_add(0, (ids[mine] - first).long(), upstream[mine])
        if close(found, expected):
            return
        others = upstream.where(~mine.unsqueeze(-1), 0)
        if gradient(value, given[0], others).any():
            raise Wrong("The rows are right, the gradient is not: foreign ids reach a row here.")
        raise Wrong("The rows are right, but their gradient is cut off in part, scaled or doubled.")
    if value.requires_grad and ids.numel() and gradient(value, given[0], upstream).any():
        raise Wrong("The rows are right, the gradient is not: foreign ids reach a row here.")


def _raises(answer: object, shard: torch.Tensor, first: int, ids: torch.Tensor) -> bool:
    try:
        answer(shard.detach().clone(), first, ids.clone())
    except Exception:
        return True
    return False


def _why_it_raised(
    answer: object, shard: torch.Tensor, first: int, ids: torch.Tensor
) -> str | None:
    """What to say if an index is out of range: which ids raise, each kind asked by itself."""
    if not len(shard):
        return "This rank holds no row at all, so every id is another rank's: look up none."
    past = first + len(shard)
    if first and _raises(answer, shard, first, torch.arange(first, past)):
        return f"Ids of this rank raised. {ROW_0}"
    end = ids.new_tensor([past])
    others = ids[(ids < first) | (ids > past)].flatten()
    if _raises(answer, shard, first, end) and not _raises(answer, shard, first, others):
        return PAST_THE_END
    return "An id of another rank raised. It has no row here: do not look it up."


class _Elements(TorchDispatchMode):
    """Counts the elements of all that operators return, one after the other."""

    many = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            self.many += part.numel() if isinstance(part, torch.Tensor) else 0
        return result


def _not_by_product(answer: object) -> None:
    shard, ids = torch.randn(2000, 2), torch.arange(60)
    with _Elements() as elements:
        call(answer, shard, 0, ids)
    if elements.many >= len(ids) * len(shard):
        raise Wrong(
            "Right rows, by way of a number for every id and every row of the shard. "
            "Look the rows up."
        )


def _far_down(answer: object) -> None:
    """Ask for a shard that lies at the end of an enormous table."""
    far = "Here `first` is 10**15. Do not build the whole table, and keep ids whole numbers."
    shard, first = torch.randn(4, 3), 10**15
    ids = torch.tensor([3, first + 1, first - 1, first + 3, first + 4])
    hints = dict.fromkeys(("alloc", "overflow", "memory", "too large", "out of"), far)
    value = call(answer, shard, first, ids, hints=hints)
    truth = shard.new_zeros(5, 3)
    truth[[1, 3]] = shard[[1, 3]]
    if not same(value, truth, "The answer"):
        raise Wrong(far)


# --- A plan -----------------------------------------------------------------------------------


@exercise
def plan(answer):
    """A function (V, D, dtype, cut, N) -> GB on the fullest of N devices, at the peak of Adam."""
    names = ["float32", "bfloat16", "float32", "float64", "bfloat16", "float32"]
    for turn, name in enumerate(names * 2):
        N = between(3, 9)
        V = N * between(50, 200) + between(1, N - 1)  # N divides neither
        D = N * between(2, 9) + between(1, N - 1)
        if turn >= 6:
            ends = [(V, D, 1), (1, D, N), (V, 1, N), (N * 20, N * 4, N), (N - 1, N - 1, N)]
            V, D, N = [*ends, (10**9, 64, 64)][turn - 6]
        for cut in ["rows", "columns"]:
            _judge_plan(answer, V, D, getattr(torch, name), cut, N)
    return "Weight, state and working space divide; by rows the gradient stays whole."


def _judge_plan(answer: object, V: int, D: int, dtype: torch.dtype, cut: str, N: int) -> None:
    by_rows = cut == "rows"
    whole = V * D
    shard = math.ceil(V / N) * D if by_rows else V * math.ceil(D / N)
    other = V * math.ceil(D / N) if by_rows else math.ceil(V / N) * D
    floor = V // N * D if by_rows else V * (D // N)
    true_gradient = whole if by_rows else shard
    unit = dtype.itemsize / 1e9
    truth = (5 * shard + true_gradient) * unit
    value = float(number(call(answer, V, D, dtype, cut, N), "Your plan"))
    if _near(value, truth):
        return
    line = "row" if by_rows else "column"
    gradient_hint = "By columns the gradient is divided as the weight is."
    if by_rows:
        gradient_hint = "By rows PyTorch's engine does not divide the gradient: V × D of it."
    adam = "Adam keeps two tables, and in a step fills two more."
    exact = whole / N
    hints = [
        (truth * 1e9, "These are bytes. GB are asked: divide by 10⁹."),
        (truth * 1e9 / 2**30, "These are GiB, of 2³⁰ bytes. GB are asked, of 10⁹."),
        (4 * truth / dtype.itemsize, f"A number of {dtype} has {dtype.itemsize} bytes, not 4."),
        (truth / dtype.itemsize, "Each number has dtype.itemsize bytes."),
        (truth * 1e9 / dtype.itemsize, "These are numbers. Each has dtype.itemsize bytes."),
        ((5 * shard + (shard if by_rows else whole)) * unit, gradient_hint),
        ((5 * other + (other if by_rows else whole)) * unit, "That is the plan for the other cut."),
        (5 * shard * unit, "The gradient is missing."),
        ((3 * shard + true_gradient) * unit, adam),
        ((shard + true_gradient) * unit, "Adam's state is missing, and its working space."),
        (3 * shard * unit, "That is SparseAdam's plan. Here the gradient is dense."),
        ((4 * shard + true_gradient) * unit, adam),
        ((2 * shard + true_gradient) * unit, adam),
        (6 * whole * unit, "Nothing is divided here. Ask of each part whether it is."),
        ((shard + 4 * whole + true_gradient) * unit, "Adam's state divides as the weight does."),
        (
            (3 * shard + 2 * whole + true_gradient) * unit,
            "Adam's state and the working space both divide.",
        ),
        ((5 * exact + (whole if by_rows else exact)) * unit, f"A {line} is not cut: round up."),
        (6 * exact * unit, f"A {line} is not cut: round up. {gradient_hint}"),
        (
            (5 * floor + (whole if by_rows else floor)) * unit,
            f"The fullest device holds more: rounding down leaves {line}s over.",
        ),
        (
            (4 * shard * 4 + (shard + true_gradient) * dtype.itemsize) / 1e9,
            "Adam's state and the working space are of the table's dtype, too.",
        ),
    ]
    recognise(value, hints, _near)
    case = f"({V:,} × {D}, {dtype}, {cut}, N = {N})"
    raise Wrong(f"{case} asks for {truth:.9f} GB, without rounding; not {value:.9f}.")


# --- Few bits ---------------------------------------------------------------------------------


class _NaNToCode(TorchDispatchMode):
    """Turns NaN into 77 where it is made a whole number: processors differ in what they make."""

    seen = False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        whole = kwargs.get("dtype") in (torch.uint8, torch.int8, torch.int32, torch.int64)
        if "_to_copy" in operator.__name__ and whole and args[0].is_floating_point():
            nan = args[0].isnan()
            self.seen |= nan.any().item()
            return operator(*args, **kwargs).masked_fill(nan, 77)
        return operator(*args, **kwargs)


@exercise
def encode(answer):
    """A function (rows, bits) -> codes (V, D) in uint8, steps (V, 1), smallest numbers (V, 1)."""
    for bits in (8, 4, 2, 1, between(3, 7)):
        V, D = between(4, 8), between(30, 50)
        sizes = torch.logspace(-2, 2, V)[:, None]
        _judge_codes(answer, torch.randn(V, D) * sizes + torch.randn(V, 1), bits)
    _judge_codes(answer, torch.randn(1, 9), 8)
    _judge_codes(answer, torch.randn(3, 7).double(), 4)
    _judge_constant(answer, torch.tensor([[0.0], [3.25], [-0.5], [1e-3]]).expand(4, between(2, 6)))
    _judge_constant(answer, torch.randn(between(2, 5), 1))  # a row of one number is constant
    _judge_codes(answer, torch.randn(3, 9) * 1e-6, 8)
    return "Each row with a step of its own, and half of it is the most that is lost."


def _judge_codes(answer: object, rows: torch.Tensor, bits: int) -> None:
    codes, step, low = _encoded(answer, rows, bits)
    true_low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    true_step = (high - true_low) / (2**bits - 1)
    if not torch.allclose(low, true_low, atol=0):
        raise Wrong("The third should be each row's own smallest number.")
    if not torch.allclose(step, true_step, rtol=1e-4, atol=0):
        _judge_steps(step, true_step, rows, bits)
    if codes.max() > 2**bits - 1:
        raise Wrong(f"With {bits} bits codes end at {2**bits - 1}; yours reach {codes.max()}.")
    off = (low + step * codes - rows) / step
    if off.abs().max() > 0.51:
        if off.max() < 0.01 and off.min() > -1.01:
            raise Wrong("Numbers are cut off to the step below. Round to the nearest one.")
        raise Wrong("low + step * codes is not the rounded table: it is off by more than half.")


def _encoded(answer: object, rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, ...]:
    value = call(answer, rows, bits)
    if not (isinstance(value, tuple | list) and len(value) == 3):
        raise Wrong(f"Three tensors are wanted, codes, steps and lows, not {describe(value)}.")
    V, D = rows.shape
    named = zip(value, [(V, D), (V, 1), (V, 1)], ("codes", "steps", "lows"), strict=True)
    for part, shape, name in named:
        if not isinstance(part, torch.Tensor):
            raise Wrong(f"The {name} should be a tensor, not {describe(part)}.")
        if part.shape != shape:
            table = " One for each row, not one for the table." if part.numel() == 1 else ""
            keep = " keepdim=True keeps (V, 1)." if part.shape == (V,) else ""
            raise Wrong(
                f"The {name} have shape {tuple(part.shape)}; {shape} is wanted.{table}{keep}"
            )
    codes, step, low = value
    if codes.dtype != torch.uint8:
        raise Wrong(f"The codes are {codes.dtype}; torch.uint8 is wanted, a byte a number.")
    for part, name in ((step, "steps"), (low, "lows")):
        if part.dtype != rows.dtype:
            raise Wrong(f"The {name} are {part.dtype}; the rows are {rows.dtype}.")
    return codes, step.detach(), low.detach()


def _judge_steps(
    step: torch.Tensor, true_step: torch.Tensor, rows: torch.Tensor, bits: int
) -> None:
    if torch.allclose(step * 2**bits, true_step * (2**bits - 1), rtol=1e-4, atol=0):
        raise Wrong(f"2**{bits} codes have 2**{bits} - 1 steps between them.")
    whole = (rows.max() - rows.min()) / (2**bits - 1)
    if torch.allclose(step, whole.expand_as(step), atol=0):
        raise Wrong(
            "The step is the whole table's. Small rows need smaller steps: one for each row."
        )
    if torch.allclose(step, true_step * (2**bits - 1) / 255, rtol=1e-4, atol=0):
        raise Wrong(f"That is the step of 8 bits. {bits} were asked.")
    if rows.abs().max() < 1e-4 or (step - true_step).abs().max() < 1e-6:
        raise Wrong(
            "Rows of tiny numbers are not constant. Add nothing to a step, round none to 0."
        )
    raise Wrong("The second should be each row's range, cut into 2**bits - 1 steps.")


def _judge_constant(answer: object, rows: torch.Tensor) -> None:
    with _NaNToCode() as watch:
        codes, step, low = _encoded(answer, rows.contiguous(), 8)
    back = low + step * codes
    if not back.isfinite().all() or (watch.seen and codes.any()):
        raise Wrong("A row of one number has a step of 0, and 0 / 0 is NaN: what code has NaN?")
    if not torch.allclose(back, rows):
        raise Wrong("A row of one and the same number should come back as it was.")
    if codes.any():
        raise Wrong(f"A row of one number should have codes of 0; yours reach {codes.max()}.")


# --- What to recommend ------------------------------------------------------------------------


@exercise
def recommend(answer):
    """A function (users, items, bias, user, seen, k) -> ids of the k best unseen items."""
    for turn in range(13):
        many, U, D = between(20, 30), between(3, 9), between(3, 6) if turn else 4
        dtype = torch.float64 if turn == 7 else torch.float32
        large = 1e6 if turn == 12 else 1
        users = (torch.randn(U, D) * large).to(dtype)
        items = (torch.randn(many, D) * large).to(dtype)
        low = 20 * (turn % 2 or turn == 12)  # every second time all scores are below zero
        bias = ((2 * torch.randn(many) - low) * large**2).to(dtype)
        user = between(int(turn == 1), U - 1 - (turn == 0))  # not the last, then not the first
        best = (items @ users[user] + bias).topk(many).indices
        seen = torch.cat([torch.arange(3), best[:3]]).unique()  # the first ids, and the best
        if turn == 5:
            seen = torch.tensor([], dtype=torch.int64)
        elif 8 < turn < 12:
            seen = torch.randperm(many)[: between(1, many - 1)]
        free = many - len(seen)
        k = [5, free, 1][turn % 3] if turn <= 8 else between(1, free)
        k = 5 if turn == 12 else k
        value = call(answer, users, items, bias, user, seen, k)
        _judge_items(value, users, items, bias, user, seen, k)
    return "Score all items at once, and leave out what the user has."


def _judge_items(value, users, items, bias, user, seen, k) -> None:
    scores = items @ users[user] + bias
    chosen = _ids(value, len(scores), k, seen)
    allowed = torch.ones(len(scores), dtype=torch.bool).index_fill(0, seen, False)
    free = allowed.nonzero().flatten()
    found, best = scores[chosen], scores[free].topk(k).values
    new, distinct = allowed[chosen].all(), len(chosen.unique()) == k
    if new and distinct and close(found, best):
        return
    places = scores[free].topk(k).indices
    if torch.equal(chosen, places) and k > 1:
        raise Wrong("These are places among the items that are left. Items' ids are asked.")
    if not new:
        others = found[allowed[chosen]]
        hidden = close(others, best[: len(others)]) and not close(found, scores.topk(k).values)
        high = (
            " What stands in place of their scores is higher than other scores." if hidden else ""
        )
        raise Wrong(f"Items that the user has are among them.{high}")
    if not distinct:
        raise Wrong("An item is recommended twice.")
    mistakes = [
        (items @ users[user], "The items' bias is missing: it is a part of the score."),
        (bias, "This is the same list for all. Where is the user's row?"),
        (items @ users[user] - bias, "The bias is added, not taken away."),
    ]
    for other in range(len(users)):
        if other != user:
            mistakes.append((items @ users[other] + bias, "Whose row is it? `user` says which."))
    for other, hint in mistakes:
        if close(other[chosen], other[free].topk(k).values):
            raise Wrong(hint)
    if close(found.sort(descending=True).values, best):
        raise Wrong("The right items; the best should come first.")
    if close(found.sort().values, scores[free].topk(k, largest=False).values):
        raise Wrong("These are the worst. The highest scores are asked.")
    if best.abs().max() > 1e6:
        raise Wrong("Scores are large here, and lose their order. Is there a sigmoid or softmax?")
    raise Wrong("These are not the highest scores: the user's row times each item's, + bias.")


def _ids(value: object, many: int, k: int, seen: torch.Tensor) -> torch.Tensor:
    """The recommended ids as a tensor, from a tensor, an array, a list or a tuple."""
    try:
        ids = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"A tensor of {k} ids is wanted, not {describe(value)}.") from None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise Wrong(f"Ids are whole numbers; this is {describe(value)}. Are they scores?")
    if ids.shape != (k,):
        taken = ids.numel() < k and len(seen) > 0
        more = " Those that the user has took places away." if taken else ""
        raise Wrong(f"{k} ids are wanted, of shape ({k},), not {describe(value)}.{more}")
    if ids.numel() and (ids.min() < 0 or ids.max() >= many):
        raise Wrong(f"Ids of items run from 0 to {many - 1}; yours reach {int(ids.max())}.")
    return ids.long()
