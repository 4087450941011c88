"""Lesson 05: wrong answers that readers give, and a part of the hint that each should get."""

from functools import partial

import numpy as np
import torch


def bytes_saved(ids, D, number=4, place=8, N=None, places=None):
    """The right count, exercise 1 of lesson 05; its arguments are what wrong answers get wrong."""
    N = ids.numel() if N is None else N(ids)
    U = len(ids.unique())
    places = N if places is None else places(ids)
    return 2 * (N - U) * D * number - places * place


def distinct_of(ids):
    return len(ids.unique())


def counted_by_training(ids, D):
    table = torch.nn.Embedding(int(ids.max()) + 1 if ids.numel() else 1, D, sparse=True)
    rows = table(ids)
    return 2 * (rows.nbytes - len(ids.unique()) * D * 4) - ids.numel() * 8


def by_tensors_of_rows(ids, D):
    distinct, places = ids.unique(return_inverse=True)
    plain = 2 * places.numel() * D * 4
    return torch.tensor(plain - 2 * distinct.numel() * D * 4 - places.nbytes)


def by_a_set(ids, D):
    flat = ids.flatten().tolist()
    return np.int64(8 * D * (len(flat) - len(set(flat))) - 8 * len(flat))


def sorts_the_ids(ids, D):
    ids.copy_(ids.flatten().sort().values.reshape(ids.shape))
    return bytes_saved(ids, D)


def in_int32(ids, D):
    N = torch.tensor(ids.numel(), dtype=torch.int32)
    U = torch.tensor(len(ids.unique()), dtype=torch.int32)
    return 2 * (N - U) * D * 4 - 8 * N


def side_by_side(ids, D):
    N = ids.numel()
    return 8 * D * (N - len(ids.flatten().unique_consecutive())) - 8 * N


def by_counts(ids, D):
    counts = ids.unique(return_counts=True)[1]
    return sum(8 * D * (count - 1) - 8 * count for count in counts.tolist())


def by_bytes_on_meta(ids, D):
    rows = torch.empty(ids.numel(), D, device="meta").nbytes
    distinct = torch.empty(np.unique(ids.numpy()).size, D, device="meta").nbytes
    return float(2 * rows - 2 * distinct - torch.int64.itemsize * ids.numel())


def without_autograd(ids, D):
    torch.set_grad_enabled(False)
    return bytes_saved(ids, D)


def placed(
    V,
    D,
    optimizer,
    slots,
    gpu,
    host,
    sizes=(1, 2, 3),
    number=4,
    share=0.8,
    cached=0.8,
    known=("SGD", "Adagrad"),
    slot=None,
    spare=0,
):
    """The right place, exercise 2 of lesson 05; its arguments are what wrong answers get wrong."""
    names = ("SGD", "Adagrad", "Adam")
    row = dict(zip(names, sizes, strict=True))[optimizer] * D * number
    slot = row if slot is None else slot * D * number
    if V * row <= share * gpu:
        return "gpu"
    if (V - spare * slots) * row <= host and slots * slot <= cached * gpu and optimizer in known:
        return "cache"
    return "host" if V * row <= host else "several machines"


def cache_before_host(V, D, optimizer, slots, gpu, host):
    found = placed(V, D, optimizer, slots, gpu, 9e99)
    return found if found == "cache" else placed(V, D, optimizer, slots, gpu, host)


def host_also_for_gpu(V, D, optimizer, slots, gpu, host):
    found = placed(V, D, optimizer, slots, gpu, host)
    rows = {"SGD": 1, "Adagrad": 2, "Adam": 3}[optimizer] * V * D * 4
    return "several machines" if found == "gpu" and rows > host else found


def a_twentieth(V, D, optimizer, slots, gpu, host):
    return placed(V, D, optimizer, V // 20, gpu, host)


def weight_alone_behind_a_cache(V, D, optimizer, slots, gpu, host):
    found = placed(V, D, optimizer, slots, gpu, 9e99)
    if found == "cache" and V * D * 4 <= host:
        return "cache"
    return placed(V, D, optimizer, slots, gpu, host)


def with_a_directory(V, D, optimizer, slots, gpu, host):
    found = placed(V, D, optimizer, slots, gpu, host)
    entries = 8 * (V + slots)
    fits = placed(V, D, optimizer, slots, gpu - entries / 0.8, host)
    return "host" if found == "cache" and fits != "cache" else found


def the_cache_first(V, D, optimizer, slots, gpu, host):
    row = 4 * D * {"SGD": 1, "Adagrad": 2, "Adam": 3}[optimizer]
    if optimizer != "Adam" and slots * row <= 0.8 * gpu and V * row <= host:
        return "cache"
    return placed(V, D, optimizer, slots, gpu, host)


def in_gigabytes(V, D, optimizer, slots, gpu, host):
    return placed(V, D, optimizer, slots, gpu / 1e9, host / 1e9, number=4e-9)


def in_fifths(V, D, optimizer, slots, gpu, host):
    row = torch.tensor(20 * D * {"SGD": 1, "Adagrad": 2, "Adam": 3}[optimizer])
    if V * row <= 4 * gpu:
        return "gpu"
    if V * row > 5 * host:
        return "several machines"
    return "host" if optimizer == "Adam" or slots * row > 4 * gpu else "cache"


def place_by_peaks(V, D, optimizer, slots, gpu, host):
    state = {"SGD": 0, "Adagrad": 1, "Adam": 2}[optimizer]
    table = V * D * 4 * (1 + state)
    cache = slots * D * 4 * (1 + state)
    ways = {
        "gpu": table <= gpu * 4 / 5,
        "cache": state < 2 and cache <= gpu * 4 / 5 and table <= host,
        "host": table <= host,
        "several machines": True,
    }
    return np.str_(next(way for way, works in ways.items() if works))


def free(following, running, queued):
    distinct = following.unique()
    return distinct[~torch.isin(distinct, torch.cat([running.flatten(), queued.flatten()]))]


def by_sets(following, running, queued):
    taken = set(running.flatten().tolist()) | set(queued.flatten().tolist())
    left = sorted(set(following.flatten().tolist()) - taken)
    return torch.tensor(left, dtype=following.dtype)


def one_by_one(following, running, queued):
    keep = [i for i in following.unique() if not (i == running).any() and not (i == queued).any()]
    return torch.stack(keep) if keep else following.new_empty(0)


def by_numpy(following, running, queued):
    return torch.from_numpy(np.setdiff1d(following.numpy(), np.append(running, queued)))


def by_a_table_of_marks(following, running, queued):
    most = max(ids.max().item() for ids in (following, running, queued) if ids.numel())
    free_now = torch.zeros(most + 1, dtype=torch.bool)
    free_now[following.long()] = True
    free_now[running.long()] = False
    free_now[queued.long()] = False
    return free_now.nonzero().flatten().to(following.dtype)


def side_by_side_in_pairs(following, running, queued):
    if not (running.numel() and queued.numel()):
        return free(following, running, queued)
    pairs = list(zip(running.flatten().tolist(), queued.flatten().tolist(), strict=False))
    return free(following, torch.tensor(pairs), torch.tensor(pairs))


def without_id_0(following, running, queued):
    found = free(following, running, queued)
    return found[found > 0]


def positions(following, running, queued):
    distinct = following.unique()
    return torch.isin(distinct, free(following, running, queued)).nonzero().flatten()


def empties_queued(following, running, queued):
    value = free(following, running, queued)
    queued.fill_(0)
    return value


def one_axis_only(following, running, queued):
    return following.sort().values.unique_consecutive(dim=0)


def evicted(slots, cache, sums, id_of, slot_of, weight, memory):
    """The right way to evict, for wrong answers to leave out parts of."""
    ids = id_of[slots]
    weight[ids] = cache[slots]
    memory[ids] = sums[slots]
    slot_of[ids] = -1
    id_of[slots] = -1


def one_slot_at_a_time(slots, cache, sums, id_of, slot_of, weight, memory):
    for slot in slots.tolist():
        id = id_of[slot].item()
        weight[id].copy_(cache[slot])
        memory[id].copy_(sums[slot])
        slot_of[id] = -1
        id_of[slot] = -1
    return weight


def by_index_copy(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of.index_select(0, slots)
    weight.index_copy_(0, ids, cache.index_select(0, slots).cpu())
    memory.index_copy_(0, ids, sums.index_select(0, slots).cpu())
    slot_of.index_fill_(0, ids, -1)
    id_of.index_fill_(0, slots, -1)


def forgets_first(slots, cache, sums, id_of, slot_of, weight, memory):
    id_of[slots] = -1
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)


def reads_too_late(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of[slots]
    weight[ids], memory[ids] = cache[slots], sums[slots]
    id_of[slots] = -1
    slot_of[id_of[slots]] = -1


def clears_the_sums(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    sums[slots] = 0


def spoils_the_slots(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    slots.fill_(-1)


def keeps_the_sums(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory.clone())


def writes_nothing(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight.clone(), memory)


def by_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    weight[slots] = cache[slots]
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)


def keeps_the_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of.clone(), slot_of, weight, memory)


def keeps_the_entry(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of.clone(), weight, memory)


def clears_by_slot(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    slot_of[slots] = -1


def flushes_all(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(id_of.ge(0).nonzero().flatten(), cache, sums, id_of, slot_of, weight, memory)


def adds(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of[slots]
    memory[ids] += sums[slots]
    rest = memory.clone()
    evicted(slots, cache, sums, id_of, slot_of, weight, memory)
    memory.copy_(rest)


def asks_slot_of(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = slot_of[slots]
    weight[ids] = cache[slots]
    memory[ids] = sums[slots]
    slot_of[ids] = -1
    id_of[slots] = -1


def into_a_copy(slots, cache, sums, id_of, slot_of, weight, memory):
    weight[id_of[slots]].copy_(cache[slots])
    evicted(slots, cache, sums, id_of, slot_of, weight.clone(), memory)


def sorts_the_ids_of_slots(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of[slots].sort().values
    weight[ids] = cache[slots]
    memory[ids] = sums[slots]
    slot_of[ids] = -1
    id_of[slots] = -1


def through_float32(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache.float().to(cache.dtype), sums, id_of, slot_of, weight, memory)


def by_whole_copies(slots, cache, sums, id_of, slot_of, weight, memory):
    ids = id_of[slots]
    weight.copy_(weight.index_copy(0, ids, cache[slots]))
    memory.copy_(memory.index_copy(0, ids, sums[slots]))
    slot_of.copy_(torch.where(torch.isin(slot_of, slots), -1, slot_of))
    id_of.scatter_(0, slots, -1)
    return True


def through_float16(slots, cache, sums, id_of, slot_of, weight, memory):
    evicted(slots, cache.half().to(cache.dtype), sums, id_of, slot_of, weight, memory)


# Right answers of unusual make.
RIGHT = {
    "cpu_offloaded_tables.saved": [by_tensors_of_rows, by_a_set, by_counts, by_bytes_on_meta],
    "cpu_offloaded_tables.place": [placed, place_by_peaks, in_gigabytes, in_fifths],
    "cpu_offloaded_tables.ahead_of": [free, by_sets, one_by_one, by_numpy, by_a_table_of_marks],
    "cpu_offloaded_tables.let_go": [evicted, one_slot_at_a_time, by_index_copy, by_whole_copies],
}

WRONG = {
    "cpu_offloaded_tables.saved": [
        (lambda ids, D: -bytes_saved(ids, D), "sign"),
        (
            lambda ids, D: 2 * len(ids.unique()) * D * 4 + 8 * ids.numel(),
            "crosses in the new way",
        ),
        (lambda ids, D: 2 * ids.numel() * D * 4, "plain way"),
        (partial(bytes_saved, place=0), "places must cross"),
        (partial(bytes_saved, place=16), "Places go out only"),
        (partial(bytes_saved, places=distinct_of), "repeats included"),
        (partial(bytes_saved, place=4), "int64"),
        (lambda ids, D: bytes_saved(ids, D, place=ids.element_size()), "int64"),
        (
            lambda ids, D: (ids.numel() - len(ids.unique())) * D * 4 - 8 * ids.numel(),
            "way out alone",
        ),
        (lambda ids, D: (ids.numel() - len(ids.unique())) * D * 4, "two directions"),
        (partial(bytes_saved, number=1), "4 bytes"),
        (partial(bytes_saved, number=8), "4 bytes"),
        (partial(bytes_saved, N=len), "any shape|raised"),
        (lambda ids, D: max(0, bytes_saved(ids, D)), "negative"),
        (lambda ids, D: abs(bytes_saved(ids, D)), "negative"),
        (counted_by_training, "raised"),
        (side_by_side, "side by side|4 bytes"),
        (lambda ids, D: bytes_saved(ids, D) - 8 * len(ids.unique()), "ids stay on the host"),
        (lambda ids, D: bytes_saved(ids, D, place=8 * D), "not D of them"),
        (
            lambda ids, D: bytes_saved(ids, D) + 4 * D * len(ids.unique()),
            "Distinct rows cross twice|which is not it",
        ),
        (lambda ids, D: bytes_saved(ids, D) - 4 * D * ids.numel(), "rows cross twice|4 bytes"),
        (in_int32, "which is not it|sign"),
        (sorts_the_ids, "wrote into its argument"),
        (without_autograd, "autograd off"),
        (lambda ids, D: (bytes_saved(ids, D),), "a number"),
    ],
    "cpu_offloaded_tables.place": [
        (partial(placed, sizes=(1, 1, 1)), "optimizer keeps|state with them"),
        (partial(placed, sizes=(2, 3, 4)), "no gradient to count"),
        (partial(placed, sizes=(2, 4, 6)), "no gradient to count"),
        (partial(placed, number=1), "you say"),
        (partial(placed, number=8), "4 bytes a number"),
        (partial(placed, share=1.0), "A fifth of the GPU"),
        (partial(placed, cached=1.0), "leave a fifth"),
        (partial(placed, slot=1), "state with them"),
        (partial(placed, spare=1), "place on the host too"),
        (partial(placed, known=("SGD", "Adagrad", "Adam")), "SGD and Adagrad only"),
        (partial(placed, known=("SGD",)), "The cache fits"),
        (lambda *given: "CPU", "four answers"),
        (lambda *given: "host" if placed(*given) == "cache" else placed(*given), "cache fits"),
        (cache_before_host, "room for all|place on the host|Neither"),
        (host_also_for_gpu, "asks nothing of the host"),
        (a_twentieth, "you say"),
        (partial(placed, sizes=(1, 2, 2)), "optimizer keeps"),
        (partial(placed, number=2), "4 bytes|state"),
        (partial(placed, share=0.85, cached=0.85), "A fifth of the GPU"),
        (partial(placed, cached=9e9), "cache's rows do not fit"),
        (the_cache_first, "first that works"),
        (weight_alone_behind_a_cache, "place on the host too|room for all|optimizer keeps"),
        (with_a_directory, "The cache fits"),
    ],
    "cpu_offloaded_tables.ahead_of": [
        (lambda f, r, q: f.unique(), "running batch"),
        (lambda f, r, q: free(f, r, r), "queued batch"),
        (lambda f, r, q: free(f, q, q), "running batch"),
        (lambda f, r, q: f.unique()[torch.isin(f.unique(), torch.cat([r, q]))], "running batch"),
        (lambda f, r, q: f[~torch.isin(f, torch.cat([r, q]))], "each once"),
        (lambda f, r, q: free(f, r, q).flip(0), "sorted"),
        (lambda f, r, q: free(f, r, q).tolist(), "as list"),
        (lambda f, r, q: free(f, r, q).float(), "int64"),
        (lambda f, r, q: free(f, r, q).long(), "int32"),
        (lambda f, r, q: free(f, r, q)[1:], "missing"),
        (lambda f, r, q: free(f, r, q)[:-1], "missing"),
        (lambda f, r, q: free(torch.cat([f, r]), q, q), "running batch|not in the following"),
        (lambda f, r, q: ~torch.isin(f, torch.cat([r, q])), "yes and no"),
        (lambda f, r, q: torch.isin(f.unique(), r).logical_not(), "yes and no"),
        (empties_queued, "wrote into its argument"),
        (one_axis_only, "running batch"),
        (side_by_side_in_pairs, "running batch|queued batch"),
        (without_id_0, "missing"),
        (positions, "not in the following|running batch|queued batch"),
        (lambda f, r, q: free(f, r, q)[None], "one axis"),
        (lambda f, r, q: free(f, r, q).numpy(), "as ndarray"),
        (
            lambda f, r, q: f.unique()[~torch.isin(f.unique(), r) | ~torch.isin(f.unique(), q)],
            "running batch",
        ),
    ],
    "cpu_offloaded_tables.let_go": [
        (forgets_first, "Once `id_of` is cleared"),
        (reads_too_late, "ask `id_of` again"),
        (spoils_the_slots, "wrote into `slots`"),
        (clears_the_sums, "wrote into `sums`"),
        ("let_go", "A function is wanted"),
        (keeps_the_sums, "`memory`"),
        (writes_nothing, "`weight`"),
        (by_slot, "nobody let go"),
        (keeps_the_slot, "slots are taken"),
        (keeps_the_entry, "rows are in the cache"),
        (clears_by_slot, "rows that stay"),
        (flushes_all, "nobody let go"),
        (adds, "`memory` does not hold"),
        (through_float16, "`weight` does not hold"),
        (through_float32, "`weight` does not hold"),
        (asks_slot_of, "Whose row lies in a slot|Once `id_of` is cleared|nobody let go"),
        (into_a_copy, "Nothing was written back to `weight`"),
        (sorts_the_ids_of_slots, "`weight` does not hold"),
    ],
}
