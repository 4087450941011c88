"""Checks of lesson 04: what a sparse gradient holds, and what optimizers do with it."""

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
from torch import nn, optim

from helpers.checks import Wrong, call, close, describe, exercise, filled, number, same

HUGE = 10**15  # rows: a table that fits into no machine
_TOO_LARGE = "Something in it has the size of the table. Make nothing larger than the batch."
TOO_LARGE = {"memory": _TOO_LARGE, "buffer size": _TOO_LARGE}


@exercise
def stored(answer):
    """A dictionary of how many lines, and bytes, the gradient of a batch holds."""
    ids, truth = torch.tensor([[4, 1, 4], [4, 0, 1]]), {}
    for name, padding in [("", None), ("padding_idx=4, ", 4)]:
        table = nn.Embedding(1000, 8, padding_idx=padding, sparse=True)
        table(ids).sum().backward()
        gradient = table.weight.grad
        truth[f"{name}as it comes"] = gradient._nnz()
        truth[f"{name}coalesced"] = gradient.coalesce()._nnz()
        truth.setdefault("bytes", gradient._indices().nbytes + gradient._values().nbytes)
    filled(answer, truth)
    for name, right in truth.items():
        said = number(answer[name], name)
        if said == right:
            continue
        if name == "bytes":
            hints = {
                6 * 8 * 4: "The indices take room too.",
                3 * (8 + 8 * 4): "As it comes, the gradient is not coalesced yet.",
                6 * (8 + 8): "A line has eight numbers of float32, 4 bytes each.",
                1000 * 8 * 4: "That is the dense gradient.",
            }
            raise Wrong(f"bytes: {hints.get(said, 'An index and eight numbers for each line.')}")
        if said in (1000, 8):
            raise Wrong(f"{name}: the list has a line for each look-up, whatever V and D.")
        if "coalesced" in name and said == truth[name.replace("coalesced", "as it comes")]:
            raise Wrong(f"{name}: repeats are still in your count. Coalescing adds them up.")
        if "coalesced" not in name and said == truth[name.replace("as it comes", "coalesced")]:
            raise Wrong(f"{name}: repeats are not added up yet. Each occurrence has a line.")
        if "padding" in name and said == truth[name.removeprefix("padding_idx=4, ")]:
            raise Wrong(f"{name}: are the lines of id 4 still in your count?")
        if "padding" in name:
            raise Wrong(f"{name}: not {said}. Write the batch down, strike out the 4s, and count.")
        what = "different ids" if name == "coalesced" else "places"
        raise Wrong(f"{name}: not {said}. Write the batch down and count its {what}.")
    return "One line for each look-up, until somebody coalesces."


@exercise
def merged(answer):
    """A function (indices, values) -> the indices and values of the coalesced gradient."""
    hints = TOO_LARGE | {"same scalar type": "The values may be of any dtype. So are their sums."}
    double = torch.float64
    batches = [([7, 2, 7, 7, 0, 2], None), ([5, 1, 3], None), ([HUGE - 1, 3, HUGE - 1], double)]
    for rows, dtype in [*batches, ([4, 2, 4], None)]:
        indices, values = torch.tensor(rows), torch.randn(len(rows), 4, dtype=dtype)
        if rows == [4, 2, 4]:
            values[2] = -values[0]
        truth = torch.sparse_coo_tensor(indices[None], values, (HUGE, 4)).coalesce()
        pair = call(answer, indices, values, hints=hints)
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Wrong(f"A pair is wanted, rows and sums, not {describe(pair)}.")
        where, sums = pair
        if isinstance(where, torch.Tensor) and where.ndim == 1:
            if torch.equal(where, indices.unique(return_inverse=True)[1]):
                raise Wrong("Those are the places of the lines among the rows, not the rows.")
            if len(where.unique()) < len(where):
                neighbours = torch.equal(where, indices.unique_consecutive())
                more = " unique_consecutive merges neighbours only." if neighbours else ""
                raise Wrong(f"A row stands in your indices twice; once is enough.{more}")
            kept = truth.values().any(dim=1)
            if not kept.all() and torch.equal(where, truth.indices()[0][kept]):
                raise Wrong("A row whose lines cancel out was looked up too. It stays, with zeros.")
        if not same(where, truth.indices()[0], "The first of the pair"):
            if close(where.sort().values, truth.indices()[0]):
                raise Wrong("The rows are right, but not in rising order.")
            raise Wrong("The first of the pair should hold the distinct rows.")
        if same(sums, truth.values(), "The second of the pair"):
            continue
        lines = [values[indices == row] for row in where]
        if all(any(close(s, line) for line in of) for s, of in zip(sums, lines, strict=True)):
            raise Wrong("A repeated row keeps one of its lines. All of them should be added up.")
        if all(close(s, of.mean(dim=0)) for s, of in zip(sums, lines, strict=True)):
            raise Wrong("Repeats are averaged. Their lines should be added up.")
        raise Wrong("The rows are right, the sums are not. Is each sum at its own row's place?")
    return "Sorted, distinct and added up, with nothing of the table's size."


def _gradients() -> list[torch.Tensor]:
    """Gradients as backward leaves them: two of a linear layer, two of tables with repeats."""
    tables = nn.Embedding(9, 4, sparse=True), nn.Embedding(5, 4, sparse=True)
    linear, ids = nn.Linear(4, 3), torch.tensor([1, 1, 1, 4, 4, 8])
    x = linear(tables[0](ids) + tables[1](ids // 2))
    (x * (1 + torch.rand_like(x))).sum().backward()
    return [p.grad for p in (*linear.parameters(), *(table.weight for table in tables))]


def _numbers(gradient: torch.Tensor) -> torch.Tensor:
    """All numbers of a gradient that may differ from zero, each once."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


@exercise
def total_norm(answer):
    """A function (gradients) -> the norm of all their numbers, some being sparse."""
    places, values = torch.tensor([[3, HUGE - 1, 3]]), torch.randn(3, 4)
    huge = torch.sparse_coo_tensor(places, values, (HUGE, 4))
    several = _gradients()
    for gradients in (several[:2], several[2:3], several, [huge, several[0]]):
        copies = [g.detach().clone() for g in gradients]
        norms = torch.stack([_numbers(g).norm() for g in gradients])
        truth = norms.norm()
        hints = {"SparseCPU": "Not every function knows sparse tensors. Their values are dense."}
        given = list(copies)
        value = call(answer, given, hints=hints | TOO_LARGE)
        if len(given) != len(copies) or any(a is not b for a, b in zip(given, copies, strict=True)):
            raise Wrong("Your function changed the list it was given. Make one of your own.")
        for mine, before in zip(copies, gradients, strict=True):
            if not close(_numbers(mine), _numbers(before)):
                raise Wrong("Your function changed a gradient. The optimizer still needs it.")
        if same(value, truth, "The norm"):
            continue
        loose = torch.stack([(g._values() if g.is_sparse else g).norm() for g in gradients])
        if close(value, loose.norm()):
            raise Wrong("Repeats are squared one by one. Add up the lines of a row first.")
        if value == 0:
            raise Wrong("Zero. clip_grad_norm_ reads .grad of each tensor; these are gradients.")
        if close(value, norms.sum()):
            raise Wrong("Norms do not add up; their squares do.")
        if close(value, truth**2):
            raise Wrong("That is the square of the norm.")
        if any(close(value, norm) for norm in norms):
            raise Wrong("That is the norm of one of the gradients. All of them are wanted.")
        raise Wrong("Square all numbers of all gradients, coalesced, add up, take the root.")
    return "Coalesced before squared, so clip_grad_norm_ would agree."


@exercise
def lazy_adam(answer):
    """A function (weight, m, v, t, indices, values) that does one step of SparseAdam in place."""
    for V, repeats in [(6, False), (40, True)]:
        table = nn.Embedding(V, 4, sparse=True)
        optimizer = optim.SparseAdam(table.parameters(), lr=0.01)
        mine = [table.weight.detach().clone(), torch.zeros(V, 4), torch.zeros(V, 4)]
        rows = torch.randperm(V)[:4]
        for t in range(1, 5):
            first, second, third = rows[[0, 1, 2 + t % 2]]  # the fourth is away, with m and v
            ids = torch.stack([first, second, first, third] if repeats else [first, second, third])
            G = torch.randn(len(ids), 4)
            G[1, 0], G[1, 1] = 0, 1e-6  # v stays at 0 and next to it, so that 1e-8 matters
            if t == 3:
                G[0] = -G[2] if repeats else 0  # a row of the batch with m, and no gradient
            optimizer.zero_grad()
            table(ids).backward(G)
            optimizer.step()
            before = [part.clone() for part in mine]
            indices, values = ids.clone(), G.clone()
            _run(answer, *mine, t, indices, values)
            if not (torch.equal(indices, ids) and torch.equal(values, G)):
                raise Wrong("Your function wrote into the indices or the values.")
            state = optimizer.state[table.weight]
            truth = [table.weight.detach(), state["exp_avg"], state["exp_avg_sq"]]
            _judge_step(mine, before, truth, ids, G, t)
    return "Only the rows of the batch, and the whole table's clock: SparseAdam's own numbers."


def _run(function: object, *inputs: object) -> None:
    """Call the reader's function for its effect; `Wrong` where it fails."""
    if not callable(function):
        raise Wrong(f"A function is wanted here, not {describe(function)}.")
    hints = {"division by zero": "You divide by zero. t counts from 1: take it as it is given."}
    call(lambda *given: (function(*given), True), *inputs, copy=False, hints=hints)


def _judge_step(mine, before, truth, ids, G, t) -> None:
    absent = torch.ones(len(mine[0]), dtype=torch.bool).index_fill_(0, ids, False)
    for name, got, old in zip(("weight", "m", "v"), mine, before, strict=True):
        if not torch.equal(got[absent], old[absent]):
            raise Wrong(f"{name}: a row changed that is not in the batch. Lazy means: leave it.")
    (weight, m, v), (right_weight, right_m, right_v) = mine, truth
    if torch.equal(m, before[1]):
        raise Wrong("m has not changed. Write into it: m[rows] = ...")
    rows, place = torch.unique(ids, return_inverse=True)
    g, squares = (torch.zeros(len(rows), 4).index_add_(0, place, x) for x in (G, G**2))
    for got, old, right in ((m, before[1], right_m), (weight, before[0], right_weight)):
        left = (g == 0) & (got[rows] == old[rows]) & ~torch.isclose(right[rows], old[rows])
        if left.any() and not close(got, right):
            raise Wrong("A number of the batch with g = 0 was left out. Its m and v fade as well.")
    if not close(m, right_m):
        if len(rows) < len(ids):
            raise Wrong("m: a repeated row got a part of its gradient. Add its lines up first.")
        raise Wrong("m: not 0.9 m + 0.1 g in the rows of the batch.")
    if not torch.allclose(v, right_v, rtol=1e-4, atol=1e-9):
        if torch.allclose(v[rows], 0.999 * before[2][rows] + 0.001 * squares, rtol=1e-4):
            raise Wrong("v: the lines of a row are squared one by one. Add them up, then square.")
        raise Wrong("v: not 0.999 v + 0.001 g² in the rows of the batch.")
    if torch.equal(weight, before[0]):
        raise Wrong("m and v are right, and the weight has not changed. Write into it.")
    if not torch.allclose(weight, right_weight, rtol=0, atol=1e-5):
        if weight.isnan().any():
            raise Wrong("The weight is no number where v is 0. That is what 1e-8 is there for.")
        plain = 0.01 * m[rows] / (v[rows].sqrt() + 1e-8)
        if torch.allclose(weight[rows], before[0][rows] - plain, rtol=0, atol=1e-5):
            raise Wrong("The weight moves without the correction by t.")
        for other in (t - 1, t + 1):
            rate = (1 - 0.999**other) ** 0.5 / (1 - 0.9**other) if other else 0
            if torch.allclose(weight[rows], before[0][rows] - rate * plain, rtol=0, atol=1e-5):
                raise Wrong(f"This is the correction for t = {other}, at step {t}.")
        large = right_v > 1e-4
        if torch.allclose(weight[large], right_weight[large], rtol=0, atol=1e-5):
            raise Wrong(
                "The weight is wrong where v is tiny. Add 1e-8 to √v itself: after the root, and "
                "before any correction."
            )
        if torch.allclose(weight, 2 * before[0] - right_weight, rtol=0, atol=1e-5):
            raise Wrong("The sign is turned: the step goes against m.")
        raise Wrong("m and v are right, the weight's step is not. Compare it with the formula.")


OUTCOMES = ("same", "other", "refused")


@exercise
def outcome(answer):
    """A dictionary from optimizer to what a sparse gradient makes of it: one of OUTCOMES."""
    pairs = {
        "SGD": (optim.SGD, optim.SGD, {}),
        "SGD(momentum=0.9)": (optim.SGD, optim.SGD, {"momentum": 0.9}),
        "SGD(weight_decay=0.1)": (optim.SGD, optim.SGD, {"weight_decay": 0.1}),
        "Adagrad": (optim.Adagrad, optim.Adagrad, {}),
        "AdamW": (optim.AdamW, optim.AdamW, {}),
        "Adam for dense, SparseAdam for sparse": (optim.Adam, optim.SparseAdam, {}),
    }
    filled(answer, pairs)
    for name, (dense, sparse, options) in pairs.items():
        said, right = answer[name], _outcome(dense, sparse, options)
        if not (isinstance(said, str) and said in OUTCOMES):
            raise Wrong(f'{name}: say "same", "other" or "refused", not {describe(said)}.')
        if said == right:
            continue
        if said == "refused":
            raise Wrong(f"{name}: it steps. Look at section 3's list again.")
        if right == "refused":
            why = "Weight decay fills in the zeros." if "decay" in name else "See section 3's list."
            raise Wrong(f"{name}: it raises an error. {why}")
        if right == "other":
            raise Wrong(f"{name}: what becomes of m where the gradient is zero, in each of them?")
        hints = {
            "SGD": "The same sum is subtracted from the same rows.",
            "SGD(momentum=0.9)": "Its buffer remembers the absent rows too, so they go on moving.",
            "Adagrad": "What does a gradient of zero add to the sum of squares?",
        }
        raise Wrong(f"{name}: {hints[name]}")
    return "Where a zero gradient changes nothing or everything is remembered, it is the same."


def _outcome(dense, sparse, options) -> str:
    """Train two tables on the same batches, one with sparse gradients, and compare them."""
    tables = [nn.Embedding(12, 4), nn.Embedding(12, 4, sparse=True)]
    tables[1].weight.data.copy_(tables[0].weight.data)
    optimizers = [
        kind(table.parameters(), lr=0.1, **options)
        for kind, table in zip((dense, sparse), tables, strict=True)
    ]
    for _ in range(4):
        ids, G = torch.randint(12, (5,)), torch.randn(5, 4)
        ids[-1] = ids[0]
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            table(ids).backward(G)
            try:
                optimizer.step()
            except RuntimeError:
                return "refused"
    return "same" if torch.allclose(*(t.weight for t in tables), atol=1e-3) else "other"
