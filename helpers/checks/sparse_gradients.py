"""Checks of lesson 04 and its side lessons: sparse gradients, their optimizers, their memory."""

import contextlib
import numbers

import torch
import torch._dynamo  # the first optimizer imports it: seconds that are not the answer's
from torch import nn, optim

from helpers.checks import (
    Wrong,
    between,
    call,
    close,
    describe,
    elsewhere,
    exercise,
    filled,
    number,
    same,
    switched_off,
)

HUGE = 10**15  # rows: a table that fits into no machine
_TOO_LARGE = "Something in it has the size of the table. Make nothing larger than the batch."
TOO_LARGE = {"memory": _TOO_LARGE, "buffer size": _TOO_LARGE}


@exercise
def merged(answer):
    """A function (indices, values) -> the indices and values of the coalesced gradient."""
    low = between(4, 40)
    batches = [[7, 2, 7, 7, 0, 2], [5, 1, 3], [HUGE - 1, 3, HUGE - 1], [low], [9] * low, [3, 4, 4]]
    for rows in batches:
        _coalesced(answer, torch.tensor(rows), between(2, 5))
    for dtype in (torch.float64, torch.bfloat16):
        _coalesced(answer, torch.randint(5, (between(6, 9),)), between(2, 5), dtype)
    _coalesced(answer, torch.randint(4, (between(6, 9),), dtype=torch.int32), 3)
    _coalesced(answer, torch.randint(HUGE, (20,)).repeat(2), 1)
    _coalesced(answer, torch.randint(300, (between(600, 700),)), 1)
    _coalesced(answer, torch.tensor([], dtype=torch.int64), between(2, 5))
    canceled = torch.randn(3, between(2, 5))
    canceled[2] = -canceled[0]
    _judge_coalesced(answer, torch.tensor([4, 2, 4]), canceled)
    elsewhere(answer, torch.tensor([4, 2, 4]), torch.randn(3, 2))
    return "Sorted, distinct and added up, with nothing of the table's size."


def _coalesced(answer, indices, D, dtype=torch.float32):
    """`Wrong` unless `answer` coalesces these indices with random values of dimension D."""
    values = torch.randn(len(indices), D, dtype=dtype)
    if dtype is torch.bfloat16:  # small whole numbers: their sums are exact in any order
        values = torch.randint(-3, 4, (len(indices), D)).to(dtype)
    _judge_coalesced(answer, indices, values)


def _judge_coalesced(answer, indices, values):
    hint = "No sparse tensor in this exercise: find the rows and their sums yourself."
    hints = TOO_LARGE | {
        "same scalar type": "The values may be of any dtype. So are their sums.",
        "self and source expected": "The values may be of any dtype. So are their sums.",
        "dtypes to match": "The values may be of any dtype. So are their sums.",
        hint: hint,
    }
    if not len(indices):
        empty = "It fails where there are no lines at all. An empty batch has an empty sum."
        hints |= {"non-empty": empty, "empty tensor": empty, "numel() == 0": empty}
    with contextlib.ExitStack() as off:
        for owner, name in [(torch, "sparse_coo_tensor"), (torch.Tensor, "coalesce")]:
            off.enter_context(switched_off(owner, name, hint))
        pair = call(answer, indices, values, hints=hints)
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Wrong(f"A pair is wanted, rows and sums, not {describe(pair)}.")
    where, sums = pair
    rows = indices.unique().long()
    if not isinstance(where, torch.Tensor):
        raise Wrong(f"The first of the pair should be a tensor, not {describe(where)}.")
    if where.dtype not in (torch.int64, indices.dtype):
        raise Wrong(f"The rows should be int64, as the indices are, not {where.dtype}.")
    where = where.long()
    if where.ndim == 1 and len(indices):
        _recognise_rows(where, indices.long(), values, rows)
    if not same(where, rows, "The first of the pair"):
        if torch.equal(where.sort().values, rows):
            raise Wrong("The rows are right, but not in rising order.")
        if close(where.double(), rows.double()):  # equal to one part in ten thousand
            raise Wrong("Large ids are not exact in yours. Keep them whole numbers, as they come.")
        raise Wrong("The first of the pair should hold the distinct rows.")
    lines = [values[indices == row] for row in rows]
    truth = torch.stack([of.double().sum(dim=0) for of in lines]) if lines else values.double()
    if same(sums, truth.to(values.dtype), "The second of the pair"):
        if values.dtype is torch.float64 and not torch.allclose(sums, truth, 1e-12, 1e-13):
            raise Wrong("The sums of float64 were rounded to fewer digits on the way.")
        return
    pairs = list(zip(sums, lines, strict=True))
    if all(close(s, len(of) * of.sum(dim=0)) for s, of in pairs):
        raise Wrong("Each sum is multiplied by the number of its lines.")
    if all(any(close(s, line) for line in of) for s, of in pairs):
        raise Wrong("A repeated row keeps one of its lines. All of them should be added up.")
    if all(close(s, of.mean(dim=0)) for s, of in pairs):
        raise Wrong("Repeats are averaged. Their lines should be added up.")
    raise Wrong("The rows are right, the sums are not. Is each sum at its own row's place?")


def _recognise_rows(where, indices, values, rows):
    """`Wrong` with the reason if `where` are not the distinct rows, in a way that is known."""
    if torch.equal(where, rows):
        return
    if torch.equal(where, indices.unique(return_inverse=True)[1]):
        raise Wrong("Those are the places of the lines among the rows, not the rows.")
    if len(where.unique()) < len(where):
        neighbours = torch.equal(where, indices.unique_consecutive())
        more = " unique_consecutive merges neighbours only." if neighbours else ""
        raise Wrong(f"A row stands in your indices twice; once is enough.{more}")
    kept = [bool(values[indices == row].sum(dim=0).any()) for row in rows]
    if not all(kept) and torch.equal(where, rows[torch.tensor(kept)]):
        raise Wrong("A row whose lines cancel out was looked up too. It stays, with zeros.")


def _gradients(dtype=torch.float32) -> list[torch.Tensor]:
    """Gradients as backward leaves them: two of a linear layer, two of tables with repeats."""
    D, V = between(2, 5), between(9, 12)
    tables = nn.Embedding(V, D, sparse=True), nn.Embedding(V, D, sparse=True)
    linear = nn.Linear(D, between(2, 5))
    for layer in (*tables, linear):
        layer.to(dtype)
    ids = torch.tensor([1, 1, 1, 4, 4, V - 1])
    x = linear(tables[0](ids) + tables[1](ids // 2))
    (x * (1 + torch.rand_like(x))).sum().backward()
    return [p.grad for p in (*linear.parameters(), *(table.weight for table in tables))]


def _numbers(gradient: torch.Tensor) -> torch.Tensor:
    """All numbers of a gradient that may differ from zero, each once."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


@exercise
def total_norm(answer):
    """A function (gradients) -> the norm of all their numbers, some being sparse."""
    D = between(2, 5)
    places = torch.tensor([[3, HUGE - 1, 3]])
    huge = torch.sparse_coo_tensor(places, torch.randn(3, D), (HUGE, D))
    empty = torch.sparse_coo_tensor(places[:, :0], torch.randn(0, D), (HUGE, D))
    tidy = huge.coalesce()
    several, double = _gradients(), _gradients(torch.float64)
    lists = [several, several[:2], several[2:3], several[::-1], double, [huge, several[0]]]
    for gradients in [*lists, [several[1], empty, huge], [tidy, several[0]]]:
        _judge_norm(answer, gradients)
    return "Coalesced before squared, so clip_grad_norm_ would agree."


def _judge_norm(answer, gradients):
    copies = [g.detach().clone() for g in gradients]
    loose = [g.is_sparse and not g.is_coalesced() for g in gradients]
    norms = torch.stack([_numbers(g).norm() for g in gradients])
    truth = norms.norm()
    hints = {"SparseCPU": "Not every function knows sparse tensors. Their values are dense."}
    uncoalesced = "values() wants a coalesced gradient: coalesce first, which adds up repeats."
    hints |= {"uncoalesced": uncoalesced} | TOO_LARGE
    given = list(copies)
    value = call(answer, given, hints=hints)
    if len(given) != len(copies) or any(a is not b for a, b in zip(given, copies, strict=True)):
        raise Wrong("Your function changed the list it was given. Make one of your own.")
    for mine, before, was_loose in zip(copies, gradients, loose, strict=True):
        if mine.is_sparse != before.is_sparse or not close(_numbers(mine), _numbers(before)):
            raise Wrong("Your function changed a gradient. The optimizer still needs it.")
        if was_loose and mine._nnz() != before._nnz():
            raise Wrong("Your function changed a gradient. The optimizer still needs it.")
    if same(value, truth, "The norm"):
        return
    as_they_come = torch.stack([(g._values() if g.is_sparse else g).norm() for g in gradients])
    if close(value, as_they_come.norm()):
        raise Wrong("Repeats are squared one by one. Add up the lines of a row first.")
    if value == 0:
        raise Wrong("Zero. clip_grad_norm_ reads .grad of each tensor; these are gradients.")
    if close(value, norms.sum()):
        raise Wrong("Norms do not add up; their squares do.")
    if close(value, truth**2):
        raise Wrong("That is the square of the norm.")
    if any(close(value, norm) for norm in norms):
        raise Wrong("That is the norm of one of the gradients. All of them are wanted.")
    for sparse, some, others in [(False, "dense", "sparse"), (True, "sparse", "dense")]:
        part = [n for g, n in zip(gradients, norms, strict=True) if g.is_sparse is sparse]
        if part and close(value, torch.stack(part).norm()):
            raise Wrong(
                f"That is the norm of the {some} gradients only. The {others} ones count too."
            )
    raise Wrong("Square all numbers of all gradients, coalesced, add up, take the root.")


OUTCOMES = ("same", "other", "refused")
PAIRS = {
    "SGD": (optim.SGD, optim.SGD, {}),
    "SGD(momentum=0.9)": (optim.SGD, optim.SGD, {"momentum": 0.9}),
    "SGD(momentum=0.9, weight_decay=0.1)": (
        optim.SGD,
        optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "Adagrad": (optim.Adagrad, optim.Adagrad, {}),
    "Adam, SparseAdam": (optim.Adam, optim.SparseAdam, {}),
    "Adam, SparseAdam, all ids in each batch": (optim.Adam, optim.SparseAdam, {}),
}


@exercise
def outcome(answer):
    """A dictionary from optimizers to what a sparse gradient makes of them: one of OUTCOMES."""
    filled(answer, PAIRS)
    for name in PAIRS:
        said, right = answer[name], _outcome(name)
        word = said.strip(" .\n").lower() if isinstance(said, str) else said
        if not (isinstance(word, str) and word in OUTCOMES):
            raise Wrong(f'{name}: say "same", "other" or "refused", not {describe(said)}.')
        if word != right:
            raise Wrong(f"{name}: {_why(name, word, right)}")
    return "Where a zero gradient changes nothing, or all is remembered, or no row is ever absent."


def _why(name: str, said: str, right: str) -> str:
    """What to think of again, for an outcome that was misjudged."""
    if said == "refused":
        return "it steps. Look at section 3's list again."
    if right == "refused":
        return "momentum alone is taken, but weight decay fills in the zeros: an error."
    if right == "other":
        return "what becomes of m where the gradient is zero, in each of them?"
    return {
        "SGD": "The same sum is subtracted from the same rows.",
        "SGD(momentum=0.9)": "Its buffer remembers the absent rows too, so they go on moving.",
        "Adagrad": "What does a gradient of zero add to the sum of squares, and where does it go?",
        "Adam, SparseAdam, all ids in each batch": "Lazy means to leave absent rows alone. Which "
        "rows are absent here?",
    }[name]


def _outcome(name: str) -> str:
    """Train two tables on the same batches, one with sparse gradients, and compare them."""
    dense, sparse, options = PAIRS[name]
    tables = [nn.Embedding(12, 4), nn.Embedding(12, 4, sparse=True)]
    tables[1].weight.data.copy_(tables[0].weight.data)
    optimizers = [
        kind(table.parameters(), lr=0.1, **options)
        for kind, table in zip((dense, sparse), tables, strict=True)
    ]
    for _ in range(4):
        ids = torch.randint(12, (5,))
        if "all ids" in name:
            ids = torch.cat([torch.randperm(12), ids])
        ids[-1] = ids[0]
        # whole numbers: near zero the two Adams differ by where they add their epsilon
        G = torch.randint(-3, 4, (len(ids), 4)).float()
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            table(ids).backward(G)
            try:
                optimizer.step()
            except RuntimeError:
                return "refused"
    return "same" if torch.allclose(*(t.weight for t in tables), atol=1e-3) else "other"


STATE = {"SGD": 0, "momentum": 1, "Adagrad": 1, "Adam": 2}
WORKING = {"SGD": 0, "momentum": 0, "Adagrad": 1, "Adam": 2}
SET_UPS = [
    (name, sparse)
    for name in STATE
    for sparse in (False, True)
    if (name, sparse) != ("momentum", True)
]


def _limits(memory, D, name, sparse, activations, number=4, shrinks=False, state=None):
    """Rows that fit at the end of forward, and at the peak of the step; not rounded."""
    state = STATE[name] if state is None else state
    if shrinks and sparse:
        state = 0
    row, at_rest = number * D, 1 + state
    in_step = at_rest if sparse else at_rest + 1 + WORKING[name]
    return (memory - activations) / (at_rest * row), memory / (in_step * row)


def _in_step(memory, D, name, sparse, activations, tables):
    """Rows that fit if forward allows as many as it does and a step takes `tables` a row."""
    forward, _ = _limits(memory, D, name, sparse, activations)
    return min(forward, memory / (4 * D * tables))


def _all_of_it(name):
    return 2 + STATE[name] + WORKING[name]


# What a reader may have computed instead, and what to say of it.
MISTAKES = [
    (
        lambda m, D, name, sparse, a: (
            (m - a) / (4 * D * ((1 + STATE[name]) if sparse else _all_of_it(name)))
        ),
        "Activations and gradient are never in use together here: backward has freed the "
        "activations when it makes the table's gradient. Two moments, two limits.",
    ),
    (
        lambda m, D, name, sparse, a: _limits(m, D, name, sparse, a)[1],
        "The activations are missing: at the end of forward they are in use with weight and state.",
    ),
    (
        lambda m, D, name, sparse, a: _limits(m, D, name, sparse, a)[0],
        "Only the end of forward is counted. In the step a dense gradient and working space come.",
    ),
    (
        lambda m, D, name, sparse, a: max(_limits(m, D, name, sparse, a)),
        "Both moments must fit, so the smaller of the two limits counts.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, sparse, a, number=1)),
        "A number of float32 takes 4 bytes.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, sparse, a, number=8)),
        "A number of float32 takes 4 bytes, not 8.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, sparse, a, shrinks=True)),
        "A sparse gradient leaves the state whole: m and v (or the sums) keep all rows.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, sparse, a, state=0)),
        "The optimizer's state is missing.",
    ),
    (
        lambda m, D, name, sparse, a: min((m - a) / (4 * D), _limits(m, D, name, sparse, a)[1]),
        "At the end of forward the state is in use too, not the weight alone.",
    ),
    (
        lambda m, D, name, sparse, a: _in_step(
            m, D, name, sparse, a, 1 if sparse else 2 + WORKING[name]
        ),
        "In the step the state is in use too.",
    ),
    (
        lambda m, D, name, sparse, a: min(
            (m - a) / (4 * D * (1 + STATE[name] + (0 if sparse else 1))),
            _limits(m, D, name, sparse, a)[1],
        ),
        "zero_grad is early here: no old gradient lies beside the activations.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, 1, name, sparse, a)),
        "A row has D numbers.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, sparse, 0 if sparse else a)),
        "With sparse, the activations are as large as before.",
    ),
    (
        lambda m, D, name, sparse, a: min(_limits(m, D, name, False, a)),
        "With sparse, gradient and working space are as small as the batch. Leave them out.",
    ),
    (
        lambda m, D, name, sparse, a: _in_step(
            m, D, name, sparse, a, 1 + STATE[name] + (0 if sparse else 1)
        ),
        "Working space is missing: Adagrad takes one table, Adam two, while they step.",
    ),
    (
        lambda m, D, name, sparse, a: _in_step(
            m, D, name, sparse, a, 1 + STATE[name] + (0 if sparse else WORKING[name])
        ),
        "The dense gradient is missing: one table.",
    ),
    (
        lambda m, D, name, sparse, a: _in_step(
            m, D, name, sparse, a, 1 + STATE[name] + (1 if sparse else 1 + WORKING[name])
        ),
        "With sparse, the gradient is as small as the batch. Leave it out.",
    ),
    (
        lambda m, D, name, sparse, a: _in_step(
            m, D, name, sparse, a, 1 + STATE[name] + WORKING[name] + (0 if sparse else 1)
        ),
        "With sparse, the working space is as small as the batch too. Leave it out.",
    ),
]


@exercise
def most_rows(answer):
    """A function (memory, D, optimizer, sparse, activations) -> the largest V that fits."""
    cases = [(*_memory(name, sparse, share), share) for name, sparse in SET_UPS for share in SHARES]
    said = []
    for *case, _ in cases:
        said.append((case, _rows(answer, case)))
    wrong = [(case, V) for case, V in said if V != _most(case)]
    if not wrong:
        return "Two moments, and the tighter one decides."
    for count, hint in MISTAKES:
        if all(V == max(0, int(count(*case))) for case, V in said):
            raise Wrong(hint)
    case, V = wrong[0]
    if all(min(_limits(*case)) < 1 for case, _ in wrong):
        raise Wrong(f"Where not even one row fits the answer is 0, not {V}.")
    if all(V == _most(case) + 1 for case, V in wrong):
        raise Wrong("One row too many: round down.")
    if all(V == _most(case) - 1 for case, V in wrong):
        raise Wrong("One row more fits: nothing need be left over.")
    memory, D, name, sparse, activations = case
    kind = "sparse" if sparse else "dense"
    raise Wrong(
        f"{memory:,} bytes, D = {D}, {name} with a {kind} gradient, {activations:,} bytes of "
        f"activations: you say {V:,} rows, and {_most(case):,} fit. Which four things are in use "
        "at each of the two moments?"
    )


SHARES = ("none", "some", "much", "all", "exact")


def _memory(name, sparse, share):
    """A random case (memory, D, optimizer, sparse, activations), with that share of the last."""
    memory, D = between(10**7, 10**10), between(1, 300)
    activations = {"none": 0, "some": memory // 50, "much": 9 * memory // 10, "all": 2 * memory}
    if share == "exact":  # so much that V rows fit, and not a byte to spare
        memory = _tables(name, sparse) * 4 * D * between(1000, 2000)
    return memory, D, name, sparse, activations.get(share, 0)


def _tables(name, sparse):
    return 1 + STATE[name] if sparse else _all_of_it(name)


def _most(case):
    memory, D, name, sparse, activations = case
    forward = (memory - activations) // ((1 + STATE[name]) * 4 * D)
    return max(0, min(forward, memory // (_tables(name, sparse) * 4 * D)))


def _rows(answer, case):
    """What the answer says for this case, if it is a whole number."""
    value = number(call(answer, *case), "The number of rows")
    if not isinstance(value, numbers.Integral) and value != value // 1:
        raise Wrong(f"Rows are whole: not {value:.6g}. Round down.")
    if not abs(value) < 1e18:
        raise Wrong(f"The number of rows should be finite, not {value}.")
    return int(value)
