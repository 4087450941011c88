"""Checks of lesson 05: what crosses, what may be fetched ahead, evicting a row, where it fits."""

import torch

from helpers.checks import Wrong, call, describe, exercise, number


@exercise
def crossing(answer):
    """A function (ids, D) -> bytes to the device and to the host, distinct rows and places."""
    for shape, V, D in [((7,), 40, 4), ((60,), 9, 16), ((5, 8), 12, 3)]:
        ids = torch.randint(V, shape)
        ids.view(-1)[:2] = 0  # there is always a repeat
        said = call(answer, ids, D)
        if not isinstance(said, (tuple, list)) or len(said) != 2:
            raise Wrong(f"Two numbers are wanted, not {describe(said)}.")
        out, home = (number(value, "Each of the two") for value in said)
        n, rows = ids.numel(), len(ids.unique()) * D * 4
        if (out, home) == (rows + 8 * n, rows):
            continue
        if (out, home) == (rows, rows + 8 * n):
            raise Wrong("The two directions are exchanged: to the device first.")
        if out in (n * D * 4, n * D * 4 + 8 * n):
            raise Wrong("That sends a row for every id. Each distinct row crosses once.")
        if out == rows:
            raise Wrong("The rows are right. The places must cross too, or nobody can spread them.")
        if out == rows + 8 * len(ids.unique()):
            raise Wrong("There is a place for every id, repeats included.")
        if ids.dim() > 1 and out == rows + 8 * len(ids):
            raise Wrong("The ids may have any shape; len counts the first axis alone.")
        if out == rows + 4 * n:
            raise Wrong("The places are int64: 8 bytes each.")
        if out in (rows // 4 + n, rows // 4 + 8 * n, 2 * rows + 8 * n):
            raise Wrong("A float32 number has 4 bytes.")
        if out == rows + 8 * n and home == n * D * 4:
            raise Wrong("The way out is right. Lines of gradient are added up before they go home.")
        if out == rows + 8 * n and home == rows + 8 * n:
            raise Wrong("The way out is right. Places have no gradient; only rows do.")
        if out == rows + 8 * n:
            raise Wrong("The way out is right. Home come the gradients of the rows that went out.")
        what = f"{n} ids of shape {shape}, {len(ids.unique())} of them distinct, D = {D}"
        raise Wrong(f"For {what} you say {out:,} and {home:,} bytes, which is not it.")
    return "Distinct rows and all places go out, a line of gradient for each row comes home."


@exercise
def ahead_of(answer):
    """A function (following, running, queued) -> ids that may be fetched now."""
    for n, V in [(12, 20), (30, 25), (6, 40)]:
        following, running, queued = (torch.randint(V, (n,)) for _ in range(3))
        following[:4] = torch.tensor([V, V, V + 1, V + 2])
        following[4], running[0], queued[1] = V + 3, V + 1, V + 2
        following = following[torch.randperm(n)]
        distinct = following.unique()
        hit = [torch.isin(distinct, other) for other in (running, queued)]
        value = call(answer, following, running, queued)
        truth = distinct[~(hit[0] | hit[1])]
        if isinstance(value, torch.Tensor) and value.dtype == truth.dtype:
            if torch.equal(value, truth):
                continue
        got = set(_as_ids(value).tolist())
        if got & set(distinct[hit[0]].tolist()):
            raise Wrong("A row of the running batch is among them. Its step is still to come.")
        if got & set(distinct[hit[1]].tolist()):
            raise Wrong("A row of the queued batch is among them. Its step comes before yours.")
        if not got <= set(distinct.tolist()):
            raise Wrong("Some of these ids are not in the following batch.")
        if got != set(truth.tolist()):
            raise Wrong("Some rows that nobody is going to change are missing.")
        wanted = "sorted, each once, in an int64 tensor with one axis"
        raise Wrong(f"The right ids, as {describe(value)}. They should be {wanted}.")
    return "Early, whatever no step on the way will change."


def _as_ids(value: object) -> torch.Tensor:
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
        raise Wrong("These are answers of yes and no. The ids themselves are wanted.")
    if isinstance(value, torch.Tensor):
        return value.flatten()
    try:
        return torch.tensor([int(v) for v in value])
    except (TypeError, ValueError):
        raise Wrong(f"A tensor of ids is wanted, not {describe(value)}.") from None


@exercise
def let_go(answer):
    """A function that evicts slots of an Adagrad cache, in place."""
    if not callable(answer):
        raise Wrong(f"A function is wanted here, not {describe(answer)}.")
    for V, n, D in [(12, 6, 4), (30, 9, 2)]:
        slots = torch.randperm(n - 1)
        slots, stays = slots[: n // 2], slots[-1].item()
        ids = torch.randperm(V - 1)  # who takes the id of a free slot, -1, hits the last row
        at = (ids == slots[0]).nonzero().item()  # an id that is also the number of a slot ...
        ids[[at, stays]] = ids[[stays, at]]  # ... is in the cache, and stays there
        ids = ids[:n]
        ids[-1] = -1  # one slot is free
        slot_of = torch.full((V,), -1)
        slot_of[ids[:-1]] = torch.arange(n - 1)
        given = [torch.randn(n, D), torch.rand(n, D), ids, slot_of, torch.randn(V, D)]
        given.append(torch.rand(V, D))
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
        if not torch.equal(weight[-1], given[4][-1]) and torch.equal(slot_of[stay], given[3][stay]):
            raise Wrong("Once `id_of` is cleared, nobody knows who lived there. Read it first.")
        for name, now, before, held in [
            ("weight", weight, given[4], given[0]),
            ("memory", memory, given[5], given[1]),
        ]:
            if not torch.equal(now[stay], before[stay]):
                raise Wrong(f"Rows of `{name}` have changed that nobody let go.")
            if torch.equal(now[gone], before[gone]):
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
    return "Read who lives there, bring both home, then forget."


@exercise
def place(answer):
    """A function (V, D, optimizer, gpu, host) -> where a table fits."""
    if not callable(answer):
        raise Wrong(f"A function is wanted here, not {describe(answer)}.")
    for name, tables in [("SGD", 1), ("Adagrad", 2), ("SparseAdam", 3)]:
        V, D = 1000 * int(torch.randint(10, 90, ())), 2 ** int(torch.randint(3, 8, ()))
        needed = tables * V * D * 4
        cached = "host" if name == "SparseAdam" else "cache"
        kept = f"What {name} keeps for each number counts too."
        for on_gpu, on_host, truth, too_much in [
            (1.3, 10, "gpu", ""),
            (0.4, 1.1, cached, "A float32 number has 4 bytes."),
            (0.9, 10, cached, kept if tables > 1 else "It does not fit there."),
            (1.1, 10, cached, "A fifth of the GPU is the network's."),
            (1.3, 0.5, "gpu", ""),
            (0.07, 2, cached, "It does not fit there."),
            (0.055, 2, "host", "The cache must leave a fifth of the GPU too."),
            (0.01, 1.1, "host", "Not even a twentieth of it fits on the GPU."),
            (0.4, 0.97, "several machines", "Behind a cache, the host needs room for all of it."),
            (0.01, 0.4, "several machines", "Neither side can hold it."),
        ]:
            gpu, host = on_gpu * needed, on_host * needed
            said = call(answer, V, D, name, gpu, host)
            places = ("gpu", "cache", "host", "several machines")
            if not isinstance(said, str) or said not in places:
                raise Wrong(f"The four answers are {', '.join(places)}, not {describe(said)}.")
            if said == truth:
                continue
            why = {
                "gpu": too_much,
                "cache": too_much,
                "host": "Does the host have room for all of it?",
                "several machines": "The host can hold it. A sparse gradient is no second table.",
            }[said]
            if said == "cache" and truth != "several machines" and name == "SparseAdam":
                why = "CachedEmbedding knows SGD and Adagrad only."
            if said != "gpu" and truth == "gpu":
                why = (
                    "It fits on the GPU: four bytes a number, no gradient to count, four fifths of "
                    "the GPU for the table. Then it asks nothing of the host."
                )
            if said == "host" and truth == "cache":
                why = "A twentieth of it fits on the GPU, which is faster."
            where = f"GPU {gpu / 1e6:.2f} MB, host {host / 1e6:.2f} MB"
            raise Wrong(f"{name}, {V:,} rows of {D}, {where}: you say {said!r}. {why}")
    return "Weight and memory together decide, and the host must be able to hold them."
