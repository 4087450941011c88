"""Checks of lesson 11: a plan, distinct rows, two tables as one, few bits, one rank's answer."""

import math
from functools import partial

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
import torch.nn.functional as F
from torch import nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.checks import Largest, Wrong, call, close, describe, exercise, number, recognise


def _near(value: float, other: float, within: float = 1e-6) -> bool:
    return abs(value - other) <= within * max(abs(value), abs(other))


def _bytes(V: int, D: int, dtype: torch.dtype, optimizer: str) -> tuple[int, int]:
    """Bytes of a table's gradient and of what an optimizer keeps for it, from a real step."""
    table = nn.Embedding(V, D, dtype=dtype)
    stepped = getattr(optim, optimizer)(table.parameters(), lr=0.1)
    table(torch.zeros(1, dtype=torch.long)).sum().backward()
    stepped.step()
    states = [s for s in stepped.state[table.weight].values() if isinstance(s, torch.Tensor)]
    return table.weight.grad.nbytes, sum(s.nbytes for s in states if s.dim())


@exercise
def plan(answer):
    """A function (V, D, dtype, optimizer, N) -> GB on the fullest of N devices, cut row-wise."""
    cases = [("float32", "Adam", 3), ("float32", "SGD", 5), ("bfloat16", "Adagrad", 7)]
    for name, optimizer, N in [*cases, ("float64", "Adam", 1)]:
        dtype, D = getattr(torch, name), torch.randint(5, 20, ()).item()
        V = N * torch.randint(50, 200, ()).item() + N // 2  # N does not divide it, unless it is 1
        rows = math.ceil(V / N)
        whole, whole_state = _bytes(V, D, dtype, optimizer)
        shard, state = _bytes(rows, D, dtype, optimizer)
        truth = shard + state + whole
        value = float(number(call(answer, V, D, dtype, optimizer, N), "Your plan")) * 1e9
        if _near(value, truth):
            continue
        where = f"({name}, {optimizer}, N = {N}) "
        fewer, floor = _bytes(V // N, D, dtype, optimizer)
        hints = {
            truth * 1e9: "These are bytes. GB are asked: divide by 10⁹.",
            truth * 1e9 / 2**30: "These are GiB, of 2³⁰ bytes. GB are asked, of 10⁹.",
            truth / 2**30 * 1e9: "These are GiB, of 2³⁰ bytes. GB are asked, of 10⁹.",
            shard + whole: "The optimizer's state is missing.",
            shard + state: "The gradient is missing.",
            shard + state + shard: "PyTorch's engine does not divide the gradient by rows: V × D.",
            V / N * D * dtype.itemsize * (2 + state / shard): "Every part is divided by N here. "
            "The gradient is not, by PyTorch's engine.",
            shard + whole_state + whole: "The optimizer's state is divided as the weight is.",
            whole + whole_state + whole: "Weight and state divide by N.",
            fewer + floor + whole: "The fullest device: V // N rows are too few where some remain.",
            4 * truth / dtype.itemsize: f"A number of {name} has {dtype.itemsize} bytes, not 4.",
            truth / dtype.itemsize: "These are numbers. Each has dtype.itemsize bytes.",
            V / N * D * dtype.itemsize * (1 + state / shard) + whole: "A row is not cut: ⌈V / N⌉.",
            shard + 2 * state + whole: "Adagrad keeps one number for each, Adam two.",
            shard + state / 2 + whole: "Adagrad keeps one number for each, Adam two.",
        }
        recognise(value, hints.items(), _near)
        raise Wrong(
            f"{where}asks for {truth / 1e9:.9f} GB, without rounding; not {value / 1e9:.9f}."
        )
    return "Weight and state divide; the gradient stays whole."


@exercise
def distinct_rows(answer):
    """A function (n, m) -> how many of m rows are used after n ids were hashed into them."""
    for n, m in [(7, 5), (30, 30), (4, 60), (50_000, 1000), (1, 9)]:
        n += torch.randint(3, ()).item() if n > 1 else 0
        missed = (1 - 1 / m) ** n
        truth = m * (1 - missed)
        value = float(number(call(answer, n, m), "The number of rows"))
        if _near(value, truth, 1e-4):
            continue
        hints = {
            float(
                min(n, m)
            ): "That is the most there can be. Some rows are hit twice, others never.",
            float(n): "Some ids meet in one row, so there are fewer rows than ids.",
            float(m): "Some rows stay empty.",
            m * missed: "Those are the empty rows. The others are asked.",
            1 - missed: "That is the share of the rows. How many are they?",
            missed: "That is the share of empty rows.",
            m * (1 - math.exp(-n / m)): "Nearly, where m is large. Take (1 - 1/m) ** n itself.",
            m * (1 - (1 - 1 / m) ** (n - 1)): "All n ids must miss a row: the row is none of them.",
            n
            * (1 - 1 / m)
            ** (n - 1): "Those are the ids alone in their row; shared rows count too.",
            n * (1 - (1 - 1 / m) ** (n - 1)): "Those are the ids that share. Rows are asked.",
            n * (n - 1) / (2 * m): "That is the number of pairs of ids that meet.",
            n
            - n
            * (n - 1)
            / (2 * m): "Pairs that meet are no lost rows: three ids make three pairs.",
        }
        recognise(value, hints.items(), partial(_near, within=1e-4))
        raise Wrong(f"{n} ids in {m} rows: {truth:.4f} rows are expected, not {value:.4f}.")
    return "A row is used unless all n ids miss it."


@exercise
def quotient_remainder(answer):
    """A class (V, D, k) of modules: the rows of ids from two tables, multiplied."""
    for V, D, k in [(27, 3, 5), (24, 4, 3), (50, 2, 13), (7, 3, 4), (2**25, 1, 2**12)]:
        module = call(answer, V, D, k, copy=False, name="QuotientRemainder")
        if not isinstance(module, nn.Module):
            raise Wrong(f"A class of nn.Module is wanted, not one of {describe(module)}.")
        remainders, quotients = _two_tables(module, V, D, k)
        with torch.no_grad():
            for table in (remainders, quotients):
                table.weight.copy_(torch.randn_like(table.weight))
        whole = "Ids must stay whole numbers: // divides so."
        hints = {
            "index out of range": f"V = {V}, k = {k}: an id asks for a row that is not there. "
            "Which table has k rows, the one for ids % k or the one for ids // k?",
            "scalar type": whole,
            "Expected tensor for argument #1 'indices'": whole,
        }
        some = torch.arange(V) if V < 1000 else torch.arange(k, V, k) - 1  # where floats round up
        for ids in (some, torch.randint(V, (2, 3)), torch.tensor(V - 1)):
            truth = remainders.weight[ids % k] * quotients.weight[ids // k]
            value = call(module, ids, name="forward", hints=hints)
            if not isinstance(value, torch.Tensor) or value.shape != truth.shape:
                twice = isinstance(value, torch.Tensor) and value.shape[-1:] == (2 * D,)
                more = " Multiply the two rows; do not put one behind the other." * twice
                raise Wrong(f"Ids of shape {tuple(ids.shape)} gave {describe(value)}.{more}")
            if close(value, remainders.weight[ids % k] + quotients.weight[ids // k]):
                raise Wrong("That is the sum of the two rows. Their product is asked.")
            if not close(value, truth):
                if V > 1000:
                    raise Wrong(
                        f"Right for small ids, not for {int(ids.max()):,}: `/` makes floats, which "
                        "run out of digits. // stays whole."
                    )
                raise Wrong(
                    "An id's row should be row id % k of one times row id // k of the other."
                )
        if value.grad_fn is None:
            raise Wrong("No gradient flows back into the tables.")
        value.sum().backward()
        if any(table.weight.grad is None for table in (remainders, quotients)):
            raise Wrong("A gradient flows back into one of the tables only. Was one detached?")
    return "Two short tables, and no two ids alike."


def _two_tables(module: nn.Module, V: int, D: int, k: int) -> tuple[nn.Embedding, nn.Embedding]:
    """The tables of the remainders and of the quotients, told apart by their rows."""
    tables = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    if len(tables) != 2 or sum(p.numel() for p in module.parameters()) != sum(
        t.weight.numel() for t in tables
    ):
        raise Wrong(
            f"Two nn.Embedding are wanted and nothing else that learns; {len(tables)} found."
        )
    if any(t.embedding_dim != D for t in tables):
        raise Wrong(f"Both tables have D = {D} columns, so that their rows can be multiplied.")
    rows, most = sorted(t.num_embeddings for t in tables), math.ceil(V / k)
    if rows != sorted([k, most]):
        said = f"V = {V}, k = {k}: tables of {rows[0]} and {rows[1]} rows. "
        if rows == sorted([k, V // k]):
            raise Wrong(said + f"V // k is {V // k}: too few, where k does not divide V.")
        if rows == sorted([k, V // k + 1]):
            raise Wrong(said + "V // k + 1 is one too many, where k divides V.")
        raise Wrong(said + f"{k} remainders are possible, and {most} quotients.")
    one, other = tables
    return (one, other) if one.num_embeddings == k else (other, one)


class _NaNToCode(TorchDispatchMode):
    """Notes whether NaN is turned into a whole number, which gives whatever the processor likes."""

    seen = False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        whole = kwargs.get("dtype") in (torch.uint8, torch.int8, torch.int32, torch.int64)
        if "_to_copy" in operator.__name__ and whole and args[0].is_floating_point():
            self.seen |= args[0].isnan().any().item()
        return operator(*args, **kwargs)


@exercise
def encode(answer):
    """A function (rows, bits) -> codes (V, D) in uint8, steps (V, 1), smallest numbers (V, 1)."""
    for bits in (8, 4, 2, 1, 5):
        V, D = 6, 40
        rows = torch.randn(V, D) * torch.logspace(-2, 2, V)[:, None] + torch.randn(V, 1)
        codes, step, low = _encoded(answer, rows, bits)
        true_low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        true_step = (high - true_low) / (2**bits - 1)
        if not torch.allclose(low, true_low):
            raise Wrong("The third should be each row's own smallest number.")
        if not torch.allclose(step, true_step, rtol=1e-4):
            _judge_steps(step, true_step, rows, bits)
        if codes.max() > 2**bits - 1:
            raise Wrong(f"With {bits} bits codes end at {2**bits - 1}; yours reach {codes.max()}.")
        off = (low + step * codes - rows) / step
        if off.abs().max() > 0.51:
            if off.max() < 0.01 and off.min() > -1.01:
                raise Wrong("Numbers are cut off to the step below. Round to the nearest one.")
            raise Wrong(
                "low + step * codes is not the rounded table. It should be off by half a step."
            )
        if bits == 8:
            packed = torch.ops.quantized.embedding_bag_byte_prepack(rows)
            theirs = torch.ops.quantized.embedding_bag_byte_unpack(packed)
            if ((low + step * codes - theirs) / step).abs().max() > 1.01:
                raise Wrong("In 8 bits your table is not PyTorch's.")
    _judge_constant(answer)
    return "Each row with a step of its own, and half of it is the most that is lost."


def _encoded(answer, rows, bits):
    value = call(answer, rows, bits)
    if not (isinstance(value, tuple | list) and len(value) == 3):
        raise Wrong(f"Three tensors are wanted, codes, steps and lows, not {describe(value)}.")
    V, D = rows.shape
    for part, shape, name in zip(
        value, [(V, D), (V, 1), (V, 1)], ("codes", "steps", "lows"), strict=True
    ):
        if not isinstance(part, torch.Tensor):
            raise Wrong(f"The {name} should be a tensor, not {describe(part)}.")
        if part.shape != shape:
            table = " One for each row, not one for the table." if part.numel() == 1 else ""
            keep = " keepdim=True keeps (V, 1)." if part.shape == (V,) else ""
            raise Wrong(
                f"The {name} have shape {tuple(part.shape)}; {shape} is wanted.{table}{keep}"
            )
    if value[0].dtype != torch.uint8:
        raise Wrong(f"The codes are {value[0].dtype}; torch.uint8 is wanted, a byte a number.")
    return value


def _judge_steps(step, true_step, rows, bits) -> None:
    if torch.allclose(step * 2**bits, true_step * (2**bits - 1), rtol=1e-4):
        raise Wrong(f"2**{bits} codes have 2**{bits} - 1 steps between them.")
    if torch.allclose(step, ((rows.max() - rows.min()) / (2**bits - 1)).expand_as(step)):
        raise Wrong(
            "The step is the whole table's. Small rows need smaller steps: one for each row."
        )
    if torch.allclose(step, true_step * (2**bits - 1) / 255, rtol=1e-4):
        raise Wrong(f"That is the step of 8 bits. {bits} were asked.")
    raise Wrong("The second should be each row's range, cut into 2**bits - 1 steps.")


def _judge_constant(answer) -> None:
    rows = torch.randn(4, 6)
    rows[1], rows[2] = 0.0, 3.25
    with _NaNToCode() as watch:
        codes, step, low = _encoded(answer, rows, 8)
    back = low + step * codes
    if watch.seen or not back.isfinite().all():
        raise Wrong("A row of one number has a step of 0, and 0 / 0 is NaN. Its codes should be 0.")
    if not torch.allclose(back[1:3], rows[1:3]):
        raise Wrong("A row of one and the same number should come back as it was.")


@exercise
def shard_rows(answer):
    """A function (shard, first, ids) -> the shard's rows of ids, zeros for the others."""
    for V, D, cut in [(12, 3, 6), (11, 4, 4), (9, 2, 3)]:
        weight = torch.randn(V, D)
        edges = torch.tensor([0, cut - 1, cut, V - 1, cut, 0])
        for ids in (edges, torch.randint(V, (2, 3)), torch.tensor(cut), torch.arange(V)):
            mine = weight.clone().requires_grad_()
            truth = weight.clone().requires_grad_()
            shards, G = mine.split(cut), torch.randn(*ids.shape, D)
            answers = []
            for rank, shard in enumerate(shards):
                answers.append(_of_rank(answer, shard, rank * cut, ids, weight))
            total = sum(answers)
            if not close(total, weight[ids]):
                raise Wrong("The ranks' answers do not add up to the table's rows.")
            if total.grad_fn is None:
                raise Wrong("No gradient flows back into the shard.")
            (total * G).sum().backward()
            (F.embedding(ids, truth) * G).sum().backward()
            if not close(mine.grad, truth.grad):
                raise Wrong("The rows add up, the gradients do not: foreign ids reach a row here.")
    shard, ids = torch.randn(200, 4), torch.arange(60)
    with Largest() as largest:
        call(answer, shard, 0, ids)
    if largest.shape.numel() >= len(ids) * len(shard):
        raise Wrong(
            f"Right rows, by way of a tensor of shape {tuple(largest.shape)}: a number for every "
            "id and every row of the shard. Look the rows up."
        )
    return "Each rank says what it has, and the sum is the table."


def _of_rank(answer, shard, first, ids, weight) -> torch.Tensor:
    foreign = "An id of another rank raised. It has no row here: look up any, then zero it."
    hints = {
        "out of range": foreign,
        "out of bounds": foreign,
        "must match the size": "The mask "
        "has the shape of ids. Give it one more dimension at its end.",
    }
    value = call(answer, shard, first, ids, copy=False, hints=hints)
    if not isinstance(value, torch.Tensor) or value.shape != (*ids.shape, shard.shape[1]):
        many = isinstance(value, torch.Tensor) and value.dim() == 2 and len(value) < ids.numel()
        more = " Ids of other ranks get a row too: of zeros." if many else ""
        raise Wrong(f"Ids of shape {tuple(ids.shape)} gave {describe(value)}.{more}")
    mine = (ids >= first) & (ids < first + len(shard))
    if not close(value[mine], weight[ids[mine]]):
        where = " Row 0 of the shard is row `first` of the table." if first else ""
        raise Wrong(f"Ids of this rank do not get their rows.{where}")
    if value[~mine].any():
        raise Wrong("Ids of other ranks get a row that is not zero, and the sum counts it.")
    return value
