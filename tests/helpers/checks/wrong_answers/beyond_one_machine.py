"""Lesson 11: wrong answers that readers give, and a part of the hint that each should get."""

import math

import numpy as np
import torch
import torch.nn.functional as F

# --- One rank's answer ------------------------------------------------------------------------


def mine_of(shard, first, ids):
    return (ids >= first) & (ids < first + len(shard))


def clamped(shard, first, ids):
    if not len(shard):
        return shard.new_zeros(*ids.shape, shard.shape[1])
    return F.embedding((ids - first).clamp(0, len(shard) - 1), shard)


def modulo(shard, first, ids):
    return F.embedding((ids - first) % len(shard), shard)


def unmasked(shard, first, ids):
    return F.embedding(ids - first, shard)


def wrapped(shard, first, ids):
    place = (ids - first).clamp(max=len(shard) - 1)
    return shard[place]


def without_first(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine] % len(shard)].roll(1, -1)
    return rows


def inclusive(shard, first, ids):
    mine = (ids >= first) & (ids <= first + len(shard))
    place = (ids - first).clamp(0, len(shard) - 1)
    return F.embedding(place, shard).where(mine.unsqueeze(-1), 0)


def inclusive_look_up(shard, first, ids):
    mine = (ids >= first) & (ids <= first + len(shard))
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine] - first]
    return rows


def exclusive(shard, first, ids):
    mine = (ids > first) & (ids < first + len(shard))
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine] - first]
    return rows


def first_forgotten(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine]]
    return rows


def zeros_in_float32(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = torch.zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine] - first]
    return rows


def whole_table(shard, first, ids):
    if not ids.numel():
        return shard.new_zeros(*ids.shape, shard.shape[1])
    size = max(int(ids.max()) + 1, first + len(shard))
    table = torch.cat([shard.new_zeros(first, shard.shape[1]), shard])
    table = torch.cat([table, shard.new_zeros(size - len(table), shard.shape[1])])
    return table[ids]


def ids_as_floats(shard, first, ids):
    return shard_rows(shard, first, ids.float().long())


def by_blocks_of_one_hot(shard, first, ids):
    mine = mine_of(shard, first, ids)
    place = (ids - first).where(mine, len(shard)).long().flatten()
    blocks = [F.one_hot(part, len(shard) + 1)[:, :-1] for part in place.split(30)]
    rows = [block.to(shard.dtype) @ shard for block in blocks]
    return torch.cat(rows).reshape(*ids.shape, shard.shape[1])


def only_mine(shard, first, ids):
    return F.embedding(ids[mine_of(shard, first, ids)] - first, shard)


def flat_mask(shard, first, ids):
    mine = mine_of(shard, first, ids)
    return F.embedding((ids - first).where(mine, 0), shard) * mine


def fails_when_empty(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = F.embedding((ids - first).where(mine, 0), shard)
    return rows.where(mine.unsqueeze(-1), 0)


def without_gradient(shard, first, ids):
    return shard_rows(shard.detach(), first, ids)


def half_the_gradient(shard, first, ids):
    rows = shard_rows(shard, first, ids)
    return rows / 2 + rows.detach() / 2


def zeroed_in_value_only(shard, first, ids):
    if not len(shard):
        return shard.new_zeros(*ids.shape, shard.shape[1])
    mine = mine_of(shard, first, ids)
    rows = F.embedding((ids - first).where(mine, 0), shard)
    return rows - rows.detach().where(~mine.unsqueeze(-1), 0)


def by_one_hot(shard, first, ids):
    mine = mine_of(shard, first, ids)
    place = (ids - first).where(mine, len(shard)).long()
    return F.one_hot(place, len(shard) + 1)[..., :-1].to(shard.dtype) @ shard


def in_float32(shard, first, ids):
    return shard_rows(shard, first, ids).float()


def on_the_cpu(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = torch.zeros(*ids.shape, shard.shape[1], dtype=shard.dtype)
    rows[mine] = shard[ids[mine] - first]
    return rows


def ids_overwritten(shard, first, ids):
    mine = mine_of(shard, first, ids)
    ids -= first
    ids[~mine] = 0
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine]]
    return rows


def shard_rows(shard, first, ids):
    mine = mine_of(shard, first, ids)
    rows = shard.new_zeros(*ids.shape, shard.shape[1])
    rows[mine] = shard[ids[mine] - first]
    return rows


def by_a_row_of_zeros(shard, first, ids):
    longer = torch.cat([shard, shard.new_zeros(1, shard.shape[1])])
    return longer[(ids - first).where(mine_of(shard, first, ids), len(shard))]


def by_one_row_at_a_time(shard, first, ids):
    nothing = shard.new_zeros(shard.shape[1])
    rows = [
        shard[i - first] if first <= i < first + len(shard) else nothing
        for i in ids.flatten().tolist()
    ]
    rows = torch.stack(rows) if rows else shard.new_zeros(0, shard.shape[1])
    return rows.reshape(*ids.shape, shard.shape[1])


# --- A plan -----------------------------------------------------------------------------------


def planned(state=2, working=2, gradient=None, up=math.ceil, unit=1e9, item=None, weight=1):
    """An answer: how often the shard is held as state and as working space; "shard", "whole" or 0
    for the gradient (None: as it should be); how V / N is rounded.
    """

    def plan(V, D, dtype, cut, N):
        shard = up(V / N) * D if cut == "rows" else V * up(D / N)
        of_gradient = gradient or ("whole" if cut == "rows" else "shard")
        lines = {"whole": V * D, "shard": shard, "none": 0}[of_gradient]
        numbers = (weight + state + working) * shard + lines
        return numbers * (item or dtype.itemsize) / unit

    return plan


def undivided(V, D, dtype, cut, N):
    return 6 * V * D * dtype.itemsize / 1e9


def state_whole(V, D, dtype, cut, N):
    return planned(state=0, working=0)(V, D, dtype, cut, N) + 4 * V * D * dtype.itemsize / 1e9


def working_whole(V, D, dtype, cut, N):
    return planned(working=0)(V, D, dtype, cut, N) + 2 * V * D * dtype.itemsize / 1e9


def state_alone_whole(V, D, dtype, cut, N):
    return planned(state=0)(V, D, dtype, cut, N) + 2 * V * D * dtype.itemsize / 1e9


def state_in_float32(V, D, dtype, cut, N):
    at_rest = planned(state=0, working=0)(V, D, dtype, cut, N)
    return at_rest + planned(weight=0, gradient="none", item=4)(V, D, dtype, cut, N)


def other_cut(V, D, dtype, cut, N):
    return planned()(V, D, dtype, "columns" if cut == "rows" else "rows", N)


def rounded_plan(V, D, dtype, cut, N):
    return round(planned()(V, D, dtype, cut, N), 3)


def plan_in_numpy(V, D, dtype, cut, N):
    return np.float64(planned()(V, D, dtype, cut, N))


def plan_in_a_tensor(V, D, dtype, cut, N):
    rows, columns = (-(-V // N), D) if cut == "rows" else (V, -(-D // N))
    gradient = (V, D) if cut == "rows" else (rows, columns)
    one = torch.empty((), dtype=dtype).element_size()
    total = one * (5 * rows * columns + math.prod(gradient))
    return torch.tensor(total, dtype=torch.float64) / 1e9


# --- Few bits ---------------------------------------------------------------------------------


def encoded(
    levels=lambda bits: 2**bits - 1, dim=1, rounding=torch.round, dtype=torch.uint8, safe=True
):
    """An answer with other levels, another step, another rounding."""

    def encode(rows, bits):
        low = rows.amin(dim=1, keepdim=True)
        high = rows.amax(dim=1, keepdim=True)
        step = (high - low) / levels(bits)
        if dim is None:
            step = ((rows.max() - rows.min()) / levels(bits)).expand(len(rows), 1)
        divisor = torch.where(step > 0, step, 1) if safe else step
        return rounding((rows - low) / divisor).to(dtype), step, low

    return encode


def scalar_step(rows, bits):
    low, step = rows.amin(dim=1, keepdim=True), (rows.max() - rows.min()) / (2**bits - 1)
    return ((rows - low) / step).round().to(torch.uint8), step, low


def flat_lows(rows, bits):
    codes, step, low = encoded()(rows, bits)
    return codes, step.squeeze(1), low.squeeze(1)


def one_low(rows, bits):
    low = rows.min().expand(len(rows), 1)
    step = (rows.amax(dim=1, keepdim=True) - low) / (2**bits - 1)
    return ((rows - low) / step).round().to(torch.uint8), step, low


def overflowing(rows, bits):
    codes, step, low = encoded(levels=lambda bits: 2**bits)(rows, bits)
    return codes, step, low


def decoded(rows, bits):
    codes, step, low = encoded()(rows, bits)
    return low + step * codes


def constant_one(rows, bits):
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = torch.where(high > low, (high - low) / (2**bits - 1), 1)
    return ((rows - low) / step).round().to(torch.uint8) + (high == low).to(torch.uint8), step, low


def constant_77(rows, bits):
    codes, step, low = encoded()(rows, bits)
    return codes.where(step > 0, torch.tensor(77, dtype=torch.uint8)), step, low


def with_an_epsilon(rows, bits):
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = (high - low) / (2**bits - 1) + 1e-8
    return ((rows - low) / step).round().to(torch.uint8), step, low


def tiny_is_constant(rows, bits):
    codes, step, low = encoded()(rows, bits)
    step = step.where(step > 1e-6, 0)
    return codes.where(step > 0, 0), step, low


def nan_replaced(rows, bits):
    codes, step, low = encoded(safe=False)(rows, bits)
    return torch.where(step > 0, codes, 0).to(torch.uint8), step, low


def in_place(rows, bits):
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    rows -= low
    return (rows / torch.where(step > 0, step, 1)).round().to(torch.uint8), step, low


def as_a_list(rows, bits):
    return list(encoded()(rows, bits))


def with_a_step_of_one(rows, bits):
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = torch.where(high > low, (high - low) / (2**bits - 1), 1)
    return ((rows - low) / step + 0.5).floor().to(torch.uint8), step, low


# --- What to recommend ------------------------------------------------------------------------


def recommended(score=None, hidden=-math.inf, largest=True):
    """An answer with other scores, or another number in place of a seen item's score."""

    def recommend(users, items, bias, user, seen, k):
        scores = (score or scored)(users, items, bias, user)
        if hidden is not None:
            scores = scores.index_fill(0, seen, hidden)
        return scores.topk(k, largest=largest).indices

    return recommend


def scored(users, items, bias, user):
    return items @ users[user] + bias


def the_worst(users, items, bias, user, seen, k):
    return recommended(lambda *given: -scored(*given))(users, items, bias, user, seen, k)


def backwards(users, items, bias, user, seen, k):
    return recommended()(users, items, bias, user, seen, k).flip(0)


def their_scores(users, items, bias, user, seen, k):
    scores = scored(users, items, bias, user).index_fill(0, seen, -math.inf)
    return scores.topk(k).values


def fewer(users, items, bias, user, seen, k):
    best = scored(users, items, bias, user).topk(k).indices
    return best[~torch.isin(best, seen)]


def shifted(users, items, bias, user, seen, k):
    left = ~torch.isin(torch.arange(len(items)), seen)
    return scored(users, items, bias, user)[left].topk(k).indices


def bias_overwritten(users, items, bias, user, seen, k):
    bias[seen] = -math.inf
    return scored(users, items, bias, user).topk(k).indices


def by_sorting(users, items, bias, user, seen, k):
    scores = scored(users, items, bias, user).tolist()
    has = set(seen.tolist())
    order = sorted(range(len(scores)), key=lambda item: -scores[item])
    return [item for item in order if item not in has][:k]


def by_ids_left(users, items, bias, user, seen, k):
    left = np.setdiff1d(np.arange(len(items)), seen.numpy())
    scores = (users[user] * items).sum(dim=1) + bias
    return torch.from_numpy(left)[scores[left].argsort(descending=True)[:k]].to(torch.int32)


WRONG = {
    "beyond_one_machine.shard_rows": [
        (clamped, "not zero"),
        (modulo, "not zero"),
        (unmasked, "another rank raised"),
        (wrapped, "not zero"),
        (without_first, "do not get their rows|no row at all"),
        (inclusive, "the next rank's|no row at all"),
        (inclusive_look_up, "the next rank's"),
        (exclusive, "this rank's, too|Row 0"),
        (first_forgotten, "Ids of this rank raised. Row 0"),
        (zeros_in_float32, "in that dtype"),
        (whole_table, "whole table"),
        (ids_as_floats, "whole numbers"),
        (by_blocks_of_one_hot, "Look the rows up"),
        (only_mine, "of zeros"),
        (flat_mask, "an axis more"),
        (fails_when_empty, "no row at all"),
        (without_gradient, "No gradient"),
        (half_the_gradient, "cut off in part"),
        (zeroed_in_value_only, "foreign ids reach"),
        (by_one_hot, "Look the rows up"),
        (in_float32, "dtype"),
        (on_the_cpu, "device"),
        (ids_overwritten, "wrote into its argument"),
    ],
    "beyond_one_machine.plan": [
        (planned(unit=1), "These are bytes"),
        (planned(unit=2**30), "These are GiB"),
        (planned(working=0), "fills two more"),
        (planned(state=0, working=0), "state is missing"),
        (planned(state=1, working=1), "keeps two tables"),
        (planned(state=1), "keeps two tables"),
        (planned(gradient="none"), "gradient is missing"),
        (planned(gradient="shard"), "does not divide the gradient"),
        (planned(gradient="whole"), "the gradient is divided"),
        (planned(working=0, gradient="none"), "SparseAdam"),
        (planned(up=math.floor), "rounding down"),
        (planned(up=lambda part: part), "round up"),
        (planned(item=4), "not 4"),
        (planned(item=1), "Each number has"),
        (planned(item=1, unit=1), "These are numbers"),
        (undivided, "Nothing is divided"),
        (state_whole, "state divides"),
        (working_whole, "both divide"),
        (state_alone_whole, "both divide"),
        (state_in_float32, "of the table's dtype"),
        (other_cut, "."),
        (rounded_plan, "without rounding"),
        (lambda V, D, dtype, cut, N: "64 GB", "a number"),
    ],
    "beyond_one_machine.encode": [
        (encoded(dim=None), "whole table's"),
        (scalar_step, "not one for the table"),
        (flat_lows, "keepdim"),
        (one_low, "own smallest"),
        (overflowing, "steps between them"),
        (encoded(levels=lambda bits: 255), "step of 8 bits"),
        (encoded(rounding=torch.floor), "cut off"),
        (encoded(rounding=lambda codes: codes), "cut off"),
        (encoded(dtype=torch.int64), "torch.uint8"),
        (encoded(safe=False), "0 / 0"),
        (decoded, "Three tensors"),
        (constant_one, "come back as it was"),
        (constant_77, "codes of 0"),
        (with_an_epsilon, "tiny numbers"),
        (tiny_is_constant, "tiny numbers"),
        (in_place, "wrote into its argument"),
        (lambda rows, bits: encoded()(rows.double(), bits), "the rows are torch.float32"),
    ],
    "beyond_one_machine.recommend": [
        (recommended(hidden=None), "that the user has"),
        (recommended(hidden=0.0), "in place of their"),
        (recommended(hidden=-100.0), "in place of their"),
        (recommended(hidden=-1e9), "in place of their"),
        (recommended(lambda *given: scored(*given).sigmoid(), hidden=-1.0), "sigmoid or softmax"),
        (recommended(lambda *given: scored(*given).softmax(0), hidden=-1.0), "sigmoid or softmax"),
        (recommended(lambda u, i, p, user: i @ u[-1] + p), "Whose row|user's row"),
        (recommended(lambda u, i, p, user: i @ u[user]), "bias is missing"),
        (recommended(lambda u, i, p, user: p), "same list for all"),
        (recommended(lambda u, i, p, user: i @ u[user] - p), "added, not taken away|is missing"),
        (recommended(lambda u, i, p, user: i @ u[0] + p), "Whose row|user's row"),
        (the_worst, "the worst"),
        (backwards, "come first"),
        (their_scores, "Are they scores"),
        (fewer, "took places away"),
        (shifted, "places among the items"),
        (bias_overwritten, "wrote into its argument"),
    ],
}

RIGHT = {
    "beyond_one_machine.shard_rows": [by_a_row_of_zeros, by_one_row_at_a_time],
    "beyond_one_machine.plan": [plan_in_numpy, plan_in_a_tensor],
    "beyond_one_machine.encode": [as_a_list, with_a_step_of_one, nan_replaced],
    "beyond_one_machine.recommend": [by_sorting, by_ids_left],
}
