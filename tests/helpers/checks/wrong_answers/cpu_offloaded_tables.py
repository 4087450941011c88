"""Lesson 05: wrong answers that readers give, and a part of the hint that each should get."""

from functools import partial

import torch


def evicted(slots, cache, sums, id_of, slot_of, weight, memory):
    """The right way to evict, exercise 3 of lesson 05, for wrong answers to leave out parts of."""
    ids = id_of[slots]
    weight[ids], memory[ids] = cache[slots], sums[slots]
    slot_of[ids] = -1
    id_of[slots] = -1


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
    slots.zero_()


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


def placed(
    V,
    D,
    optimizer,
    gpu,
    host,
    sizes=(1, 2, 3),
    number=4,
    share=0.8,
    cached=0.8,
    known=("SGD", "Adagrad"),
):
    """Exercise 4 of lesson 05, with what wrong answers get wrong as arguments."""
    needed = (
        dict(zip(("SGD", "Adagrad", "SparseAdam"), sizes, strict=True))[optimizer] * V * D * number
    )
    if needed <= share * gpu:
        return "gpu"
    if needed <= host and needed / 20 <= cached * gpu and optimizer in known:
        return "cache"
    return "host" if needed <= host else "several machines"


WRONG = {
    "cpu_offloaded_tables.crossing": [
        (
            lambda ids, D: (ids.numel() * D * 4, ids.numel() * D * 4),
            "Each distinct row crosses once",
        ),
        (lambda ids, D: (len(ids.unique()) * D * 4,) * 2, "places must cross"),
        (
            lambda ids, D: (len(ids.unique()) * (4 * D + 8), len(ids.unique()) * D * 4),
            "repeats included",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 8 * len(ids), len(ids.unique()) * D * 4),
            "any shape",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 8 * ids.numel(), ids.numel() * D * 4),
            "added up",
        ),
        (lambda ids, D: (len(ids.unique()) * D * 4 + 8 * ids.numel(),) * 2, "no gradient"),
        (
            lambda ids, D: (len(ids.unique()) * D * 4 + 4 * ids.numel(), len(ids.unique()) * D * 4),
            "int64",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D + 8 * ids.numel(), len(ids.unique()) * D),
            "4 bytes",
        ),
        (
            lambda ids, D: (len(ids.unique()) * D * 4, len(ids.unique()) * D * 4 + 8 * ids.numel()),
            "exchanged",
        ),
        (lambda ids, D: len(ids.unique()) * D * 4, "Two numbers"),
    ],
    "cpu_offloaded_tables.ahead_of": [
        (lambda f, r, q: f.unique(), "running batch"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), r)], "queued batch"),
        (lambda f, r, q: f.unique()[torch.isin(f.unique(), torch.cat([r, q]))], "running batch"),
        (lambda f, r, q: f[~torch.isin(f, torch.cat([r, q]))], "each once"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].flip(0), "sorted"),
        (
            lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].tolist(),
            "as list",
        ),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))].float(), "int64"),
        (lambda f, r, q: f.unique()[~torch.isin(f.unique(), torch.cat([r, q]))][1:], "missing"),
        (lambda f, r, q: torch.cat([f, r]).unique(), "running batch|not in the following"),
        (lambda f, r, q: ~torch.isin(f, torch.cat([r, q])), "yes and no"),
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
    ],
    "cpu_offloaded_tables.place": [
        (partial(placed, sizes=(1, 1, 1)), "keeps for each number"),
        (partial(placed, sizes=(2, 3, 4)), "you say"),
        (partial(placed, number=1), "4 bytes"),
        (partial(placed, number=8), "four bytes a number"),
        (partial(placed, share=1.0), "A fifth of the GPU"),
        (partial(placed, cached=1.0), "leave a fifth"),
        (partial(placed, known=("SGD", "Adagrad", "SparseAdam")), "SGD and Adagrad only"),
        (lambda V, D, optimizer, gpu, host: "CPU", "four answers"),
        (lambda *a: "host" if placed(*a) == "cache" else placed(*a), "twentieth of it fits|only"),
        (
            lambda V, D, o, gpu, host: (
                "cache" if placed(V, D, o, gpu, 9e99) == "cache" else placed(V, D, o, gpu, host)
            ),
            "room for all of it|Neither|only",
        ),
    ],
}
