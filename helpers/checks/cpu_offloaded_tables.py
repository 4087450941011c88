"""Checks of lesson 05 and its side lessons: what crosses, where a table fits, what may be fetched
ahead, evicting a row.
"""

import torch

from helpers.checks import (
    Wrong,
    between,
    call,
    describe,
    exercise,
    ids_of,
    number,
    recognise,
    shapes,
)


@exercise
def saved(answer):
    """A function (ids, D) -> bytes fewer that cross when only distinct rows do."""
    cases = [_repeating(between(20, 40), torch.int64) for _ in range(3)]
    cases += [_repeating(between(20, 40), torch.int32), _repeating(between(20, 40)).reshape(-1, 2)]
    cases += [ids_of(between(2, 9), shape) for shape in shapes()]
    cases += [torch.randperm(between(5, 20)), torch.zeros(between(3, 9), dtype=torch.int64)]
    for ids in cases:
        for D in (between(50, 900), 1, 10**12 + between(0, 99)):  # counted, not made
            said = number(call(answer, ids, D), "The number of bytes")
            _judge_saved(said, ids, D)
    return "Rows cross twice, places once: whether that saves depends on how often ids repeat."


def _repeating(N: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """2 N ids, each of them there twice or more, and many numbers of an id unused."""
    ids = 3 * torch.randint(N, (N,), dtype=dtype)
    return torch.cat([ids, ids])[torch.randperm(2 * N)]


def _judge_saved(said: float, ids: torch.Tensor, D: int) -> None:
    N, U = ids.numel(), len(ids.unique())
    row = 4 * D
    plain, distinct = 2 * N * row, 2 * U * row + 8 * N
    truth = plain - distinct
    if said == truth:
        return
    what = f"{N} ids of shape {tuple(ids.shape)}, {U} of them distinct, D = {D}"
    first = len(ids) if ids.dim() else 1
    mistakes = [
        (max(truth, 0), "It may be negative: here more crosses than in the plain way."),
        (abs(truth), "It may be negative: here more crosses than in the plain way."),
        (-truth, "The sign is turned round: bytes saved are positive."),
        (distinct, "That is what crosses in the new way. How many bytes fewer is that?"),
        (plain, "That is what crosses in the plain way. How many bytes fewer are sent?"),
        (plain - 2 * U * row, "The places must cross too, or nobody can spread the rows."),
        (truth - 8 * N, "Places go out only: they have no gradient that would come home."),
        (truth - 8 * U, "The ids stay on the host here. What crosses beside rows is the places."),
        (truth + 8 * N - 8 * N * D, "A place is one number for each id, not D of them."),
        (plain - 2 * U * row - 8 * U, "There is a place for every id, repeats included."),
        (truth + 4 * N, "Places are int64, 8 bytes each, whatever dtype the ids have."),
        (
            (N - U) * row - 8 * N,
            "That saves on the way out alone. The lines of gradient are added up on the device, "
            "before they come home.",
        ),
        ((N - U) * row, "There are two directions, and places that cross in one of them."),
        (2 * D * (N - U) - 8 * N, "A float32 number has 4 bytes."),
        (2 * truth + 8 * N, "A float32 number has 4 bytes."),
        (2 * (first - U) * row - 8 * first, "Ids may have any shape; len() counts the first axis."),
        ((2 * N - U) * row - 8 * N, "Distinct rows cross twice too: out, and home as gradients."),
        ((N - 2 * U) * row - 8 * N, "In the plain way rows cross twice too, out and home."),
        (
            2 * (N - len(ids.flatten().unique_consecutive())) * row - 8 * N,
            "Equal ids need not stand side by side, and unique_consecutive() counts on that.",
        ),
    ]
    recognise(said, mistakes, near=lambda a, b: a == b)
    raise Wrong(f"For {what} you say {said:,}, which is not it.")


@exercise
def place(answer):
    """A function (V, D, optimizer, slots, gpu, host) -> where a table fits."""
    if not callable(answer):
        raise Wrong(f"A function is wanted here, not {describe(answer)}.")
    for _ in range(4):
        for name, tables in [("SGD", 1), ("Adagrad", 2), ("Adam", 3)]:
            V, D = 1000 * between(10, 90_000), 2 ** between(0, 8)
            slots = V * between(3, 30) // 100
            for case in _cases(V, D, slots, tables):
                _judge_place(answer, V, D, name, slots, tables, *case)
    return "Weight and state together decide, and behind a cache the host needs room for all."


NO_ROOM = "It does not fit there: V * D numbers of 4 bytes for the weight, and its state."


def _cases(V: int, D: int, slots: int, tables: int) -> list[tuple[float, float, str]]:
    """(gpu, host, what was forgotten if too much is said to fit), drawn anew."""
    table = 4 * V * D
    whole, cached = tables * table, 4 * tables * slots * D
    state = "What the optimizer keeps for each number counts too." if tables > 1 else ""
    a_little = 1.04 + between(1, 15) / 100  # more than a fifth of it is needed: too little
    cases = []
    if tables > 1:
        cases += [
            (1.3 * (tables - 1) * table, 3 * whole, state),
            (1.4 * 4 * slots * D, 3 * whole, "Cached rows have their state with them."),
            (0.5 * cached, 1.1 * table, state),
        ]
    cases += [
        (1.4 * whole, 10 * whole, ""),
        (1.28 * whole, 0.5 * whole, ""),
        (0.9 * whole, 10 * whole, NO_ROOM),
        (a_little * whole, 10 * whole, "A fifth of the GPU is the network's."),
        (1.23 * whole, 10 * whole, "A fifth of the GPU is the network's, and not less."),
        (1.4 * cached, 1.1 * whole, NO_ROOM),
        (1.28 * cached, 1.02 * whole, NO_ROOM),
        (0.5 * cached, 1.1 * whole, "The cache's rows do not fit on the GPU."),
        (a_little * cached, 2 * whole, "The cache must leave a fifth of the GPU too."),
        (1.23 * cached, 2 * whole, "The cache must leave a fifth of the GPU too, and not less."),
        (1.4 * cached, whole - cached // 2, "Cached rows and state have a place on the host too."),
        (0.9 * whole, 0.8 * whole, "Behind a cache, the host needs room for all of it."),
        (0.5 * cached, 0.4 * whole, "Neither side can hold it."),
    ]
    return cases


def _judge_place(
    answer: object,
    V: int,
    D: int,
    name: str,
    slots: int,
    tables: int,
    gpu: float,
    host: float,
    forgotten: str,
) -> None:
    gpu, host = int(gpu), int(host)
    row, places = 4 * D * tables, ("gpu", "cache", "host", "several machines")
    if V * row <= 0.8 * gpu:
        truth = "gpu"
    elif V * row > host:
        truth = "several machines"
    else:
        truth = "cache" if name != "Adam" and slots * row <= 0.8 * gpu else "host"
    said = call(answer, V, D, name, slots, gpu, host)
    if not isinstance(said, str) or said not in places:
        raise Wrong(f"The four answers are {', '.join(places)}, not {describe(said)}.")
    if said == truth:
        return
    why = forgotten or "That does not fit."
    if truth == "gpu":
        why = (
            "The first that works is wanted. It fits on the GPU: 4 bytes a number, weight and "
            "state, no gradient to count, four fifths of the GPU for the table. Then it asks "
            "nothing of the host."
        )
    elif said == "cache" and name == "Adam" and truth == "host":
        why = "CachedEmbedding knows SGD and Adagrad only."
    elif said == "host" and truth == "cache":
        why = "The cache fits: its rows on the GPU, with their state, and all rows on the host."
    elif said == "several machines":
        why = "The host can hold all of it: weight and state. A sparse gradient is no third thing."
    numbers = f"GPU {gpu / 1e6:,.2f} MB, host {host / 1e6:,.2f} MB, {slots:,} slots"
    raise Wrong(f"{name}, {V:,} rows of {D}, {numbers}: you say {said!r}. {why}")


@exercise
def ahead_of(answer):
    """A function (following, running, queued) -> ids that may be fetched now."""
    for dtype in (torch.int64, torch.int64, torch.int32):
        for n, V in [(between(9, 15), 20), (between(25, 40), 25), (between(6, 9), 40), (6, 2)]:
            following, running, queued = (
                torch.randint(1, V, (size,), dtype=dtype) for size in (n, n + 3, n)
            )
            running[-1] = V + 5
            if between(0, 1):
                running, queued = queued, running  # one is longer than the other
            # 0 and, twice, V are free; V + 1 is running, V + 2 queued, V + 3 both; V + 4 is free
            following[:5] = torch.tensor([V, V, V + 1, V + 2, V + 4])
            running[0], queued[0] = V + 1, V + 2
            running[1] = queued[1] = following[5] = V + 3
            following = torch.cat([following, torch.tensor([0, V + 5], dtype=dtype)])
            _judge_ahead(answer, following[torch.randperm(n + 2)], running, queued)
        none = torch.empty(0, dtype=dtype)
        _judge_ahead(answer, following, none, none)
        _judge_ahead(answer, following, running, none)
        _judge_ahead(answer, none, running, queued)
        _judge_ahead(answer, following, following.flip(0), queued)
        _judge_ahead(answer, following[:4].reshape(2, 2), running[None], queued[None])
    return "Early, whatever no step on the way will change."


def _judge_ahead(
    answer: object, following: torch.Tensor, running: torch.Tensor, queued: torch.Tensor
) -> None:
    distinct = following.unique()
    in_running, in_queued = torch.isin(distinct, running), torch.isin(distinct, queued)
    truth = distinct[~(in_running | in_queued)]
    value = call(answer, following, running, queued)
    if isinstance(value, torch.Tensor) and value.dtype == truth.dtype:
        if torch.equal(value, truth):
            return
    got = set(_as_ids(value).tolist())
    if not got <= set(distinct.tolist()):
        raise Wrong("Some of these ids are not in the following batch.")
    if got & set(distinct[in_running].tolist()):
        raise Wrong("A row of the running batch is among them. Its step is still to come.")
    if got & set(distinct[in_queued].tolist()):
        raise Wrong("A row of the queued batch is among them. Its step comes before yours.")
    if got != set(truth.tolist()):
        raise Wrong("Some rows that nobody is going to change are missing.")
    kind = str(truth.dtype).removeprefix("torch.")
    wanted = f"sorted, each once, in a tensor of {kind} with one axis"
    raise Wrong(f"The right ids, as {describe(value)}. They should be {wanted}.")


def _as_ids(value: object) -> torch.Tensor:
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
        raise Wrong("These are answers of yes and no. The ids themselves are wanted.")
    if isinstance(value, torch.Tensor) and not value.is_meta and not value.is_sparse:
        return value.flatten()
    try:
        return torch.tensor([int(v) for v in value])
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"A tensor of ids is wanted, not {describe(value)}.") from None


@exercise
def let_go(answer):
    """A function that evicts slots of an Adagrad cache, in place."""
    if not callable(answer):
        raise Wrong(f"A function is wanted here, not {describe(answer)}.")
    for V, n, D, dtype, leave in [
        (between(12, 20), 6, 4, torch.float32, 3),
        (between(30, 40), 9, 2, torch.float32, 4),
        (between(12, 20), between(5, 9), 1, torch.float64, 2),
        (between(12, 20), 7, 3, torch.bfloat16, 1),
        (between(9, 20), 6, 2, torch.float32, 5),
        (between(9, 20), 6, 2, torch.float32, 0),
    ]:
        _judge_let_go(answer, V, n, D, dtype, leave)
    return "Read who is there, bring both home, then forget."


def _judge_let_go(answer: object, V: int, n: int, D: int, dtype: torch.dtype, leave: int) -> None:
    slots = torch.randperm(n - 1)
    slots, stays = slots[:leave], slots[-1].item()
    ids = torch.randperm(V - 1)  # who takes the id of a free slot, -1, hits the last row
    if 0 < leave < n - 1:
        at = (ids == slots[0]).nonzero().item()  # an id that is also the number of a slot ...
        ids[[at, stays]] = ids[[stays, at]]  # ... is in the cache, and stays there
    ids = ids[:n]
    ids[-1] = -1  # one slot is free
    slot_of = torch.full((V,), -1)
    slot_of[ids[:-1]] = torch.arange(n - 1)
    given = [torch.randn(n, D, dtype=dtype), torch.rand(n, D, dtype=dtype), ids, slot_of]
    given += [torch.randn(V, D, dtype=dtype), torch.rand(V, D, dtype=dtype)]
    rows, sums, id_of, slot_of, weight, memory = mine = [t.clone() for t in given]
    gone, stay = given[2][slots], torch.ones(V, dtype=torch.bool)
    stay[gone] = False
    asked = slots.clone()
    # Answers need not return anything, which call() takes for a mistake.
    call(lambda *a: (answer(*a), True), asked, *mine, copy=False)
    for name, now, before in [
        ("slots", asked, slots),
        ("rows", rows, given[0]),
        ("sums", sums, given[1]),
    ]:
        if not torch.equal(now, before):
            raise Wrong(f"You wrote into `{name}`, which are to stay as they are.")
    if torch.equal(weight[given[3][slots]], given[0][slots]) and not torch.equal(
        weight[gone], given[0][slots]
    ):
        raise Wrong("`slot_of` is asked by ids. Whose row lies in a slot, `id_of` says.")
    if not torch.equal(weight[-1], given[4][-1]) and torch.equal(slot_of[stay], given[3][stay]):
        raise Wrong("Once `id_of` is cleared, nobody knows whose row it was. Read it first.")
    for name, now, before, held in [
        ("weight", weight, given[4], given[0]),
        ("memory", memory, given[5], given[1]),
    ]:
        if not torch.equal(now[stay], before[stay]):
            raise Wrong(f"Rows of `{name}` have changed that nobody let go.")
        if len(gone) and torch.equal(now[gone], before[gone]):
            raise Wrong(f"Nothing was written back to `{name}`. What the row learned is lost.")
        if not torch.equal(now[gone], held[slots]):
            raise Wrong(f"`{name}` does not hold what the cache held, row for row.")
    if not (slot_of[gone] == -1).all():
        raise Wrong(
            "`slot_of` still says that the rows are in the cache. (If you ask `id_of` again "
            "after you have cleared it, it names nobody.)"
        )
    if not torch.equal(slot_of[stay], given[3][stay]):
        raise Wrong("`slot_of` has changed for rows that stay.")
    if not (id_of[slots] == -1).all():
        raise Wrong("`id_of` still says that the slots are taken.")
    others = torch.ones(n, dtype=torch.bool)
    others[slots] = False
    if not torch.equal(id_of[others], given[2][others]):
        raise Wrong("`id_of` has changed for slots that stay.")
