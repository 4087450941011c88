"""Side lessons of lesson 02: wrong answers, and right ones of unusual make."""

import numpy as np
import torch
import torch.nn.functional as F

# ------------------------------------------------------------------ places and hard choices


def filled(ids, V, start=-1):
    back = torch.full((V,), start)
    back[ids.long()] = torch.arange(len(ids))
    return back


def marks_and_puts_back(ids, V):
    if ids.numel():
        ids[0] += 1
        ids[0] -= 1
    return filled(ids, V)


def first_places(ids, V):
    """The largest entry of each column of P: place 0 where there is none."""
    return F.one_hot(ids.long(), V).argmax(0) if len(ids) else filled(ids, V)


def places_of_permutations(ids, V):
    return ids.argsort() if len(ids) == V else filled(ids, V)


def counts_or_nothing(ids, V):
    counts = ids.bincount(minlength=V)
    return torch.where(counts > 0, counts, -1)


def ids_or_nothing(ids, V):
    return ids.clone() if len(ids) == V == len(ids.unique()) else filled(ids, V)


def in_one_buffer():
    buffers = {}

    def one(ids, V):
        back = buffers.setdefault(V, torch.empty(V, dtype=torch.int64)).fill_(-1)
        back[ids.long()] = torch.arange(len(ids))
        return back

    return one


def in_dtype(dtype):
    return lambda ids, V: filled(ids, V).to(dtype)


def by_the_matrix(ids, V):
    P = F.one_hot(ids.long(), V)
    numbered = P * (1 + torch.arange(len(ids)))[:, None]
    return numbered.sum(0).clamp(max=0) - 1 if not len(ids) else numbered.amax(0) - 1


def by_a_list(ids, V):
    ids = ids.tolist()
    return [ids.index(row) if row in ids else -1 for row in range(V)]


def by_a_dictionary(ids, V):
    place = {int(row): n for n, row in enumerate(ids)}
    return np.array([place.get(row, -1) for row in range(V)])


def in_a_tuple(ids, V):
    return tuple(torch.tensor(place) for place in by_a_list(ids, V))


def through(hard, soft):
    """The value of one, the gradient of the other."""
    return soft + (hard - soft).detach()


def rows_and_mixture(logits, E):
    return E[logits.argmax(-1)], torch.softmax(logits, -1) @ E


def overflows(logits, E):
    weights = logits.exp()
    return through(E[logits.argmax(-1)], (weights / weights.sum(-1, keepdim=True)) @ E)


def added(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return hard.detach() + soft


def wrong_sign(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return soft + (soft - hard).detach()


def the_other_way_round(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return through(soft, hard)


def over_the_batch(logits, E):
    return through(E[logits.argmax(-1)], torch.softmax(logits, 0) @ E)


def without_the_table(logits, E):
    return through(E[logits.argmax(-1)], torch.softmax(logits, -1) @ E.detach())


def half_of_the_gradient(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return through(hard, soft / 2)


def from_the_sigmoid(logits, E):
    return through(E[logits.argmax(-1)], logits.sigmoid() @ E)


def by_one_hot_weights(logits, E):
    soft = torch.softmax(logits, -1)
    hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(soft.dtype)
    return (hard + soft - soft.detach()) @ E


def by_three_terms(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return hard.detach() - soft.detach() + soft


def one_by_one(logits, E):
    lines = logits.reshape(-1, logits.shape[-1])
    rows = [through(*rows_and_mixture(line, E)) for line in lines]
    found = torch.stack(rows) if rows else lines @ E
    return found.reshape(*logits.shape[:-1], E.shape[1])


def with_a_table_gradient(change):
    """Right values and right gradient of the logits; the hard row's gradient is changed."""

    def changed(logits, E):
        seen = E * 1.0
        if seen.requires_grad:
            seen.register_hook(change)
        hard, soft = seen[logits.argmax(-1)], torch.softmax(logits, -1) @ E.detach()
        return hard + soft - soft.detach()

    return changed


def one_column(gradient):
    return torch.cat([gradient[:, :1], torch.zeros_like(gradient[:, 1:])], 1)


def both_gradients(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return hard + soft - soft.detach()


def through_float32_numbers(logits, E):
    return through(*rows_and_mixture(logits.float(), E.float())).to(E.dtype)


def mixture_through_float32(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return through(hard, (torch.softmax(logits.float(), -1) @ E.float()).to(E.dtype))


def leaves_its_gradient(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    soft.sum().backward(retain_graph=True)
    return through(hard, soft)


def writes_through_data(logits, E):
    logits.data -= 1
    return through(*rows_and_mixture(logits, E))


class WritesBack(torch.autograd.Function):
    """The way back writes into the logits."""

    @staticmethod
    def forward(ctx, logits):
        ctx.logits = logits
        return logits.clone()

    @staticmethod
    def backward(ctx, upstream):
        ctx.logits.data.zero_()
        return upstream


def by_logsumexp(logits, E):
    soft = (logits - logits.logsumexp(-1, keepdim=True)).exp() @ E
    return through(E[logits.argmax(-1)], soft)


def by_log_softmax(logits, E):
    soft = torch.log_softmax(logits, -1).exp() @ E
    return through(E[logits.max(-1).indices], soft)


def nothing_for_nobody(logits, E):
    if not logits.numel():
        return E.new_zeros(*logits.shape[:-1], E.shape[1]).detach()
    return through(*rows_and_mixture(logits, E))


def with_the_row_for_the_table(logits, E):
    soft = torch.softmax(logits, -1) @ E.detach()
    return E[logits.argmax(-1)] + (soft - soft.detach())


def with_a_sparse_gradient(logits, E):
    soft = torch.softmax(logits, -1) @ E.detach()
    return F.embedding(logits.argmax(-1), E, sparse=True) + (soft - soft.detach())


class Through(torch.autograd.Function):
    """The hard rows forward, the gradient for the mixture backward."""

    @staticmethod
    def forward(ctx, soft, hard):
        return hard.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def by_a_function_of_its_own(logits, E):
    hard, soft = rows_and_mixture(logits, E)
    return Through.apply(soft, hard)


WRONG = {
    "one_hot_equivalence.places": [
        (lambda ids, V: ids.argsort(), "one place for each|stands nowhere"),
        (places_of_permutations, "stands nowhere"),
        (lambda ids, V: filled(ids, V, start=0), "stands nowhere"),
        (first_places, "stands nowhere"),
        (lambda ids, V: filled(ids, int(ids.max()) + 1), "raised|one place for each"),
        (lambda ids, V: filled(ids, V).float(), "whole numbers"),
        (lambda ids, V: filled(ids, V) >= 0, "whole numbers"),
        (lambda ids, V: ids.bincount(minlength=V), "how often|stands nowhere"),
        (counts_or_nothing, "how often|ids.back"),
        (ids_or_nothing, "the ids themselves|ids.back"),
        (lambda ids, V: filled(ids, V) - len(ids), "does stand there|stands nowhere"),
        (lambda ids, V: filled(ids.flip(0), V), "ids.back"),
        (lambda ids, V: [p for p in by_a_list(ids, V) if p >= 0], "one place for each"),
        (in_dtype(torch.int8), "int8 holds -128 to 127"),
        (in_dtype(torch.uint8), "uint8 holds 0 to 255"),
        (in_dtype(torch.int16), "int16 holds -32768 to 32767"),
        (lambda ids, V: filled(ids.to(torch.int8) % V, V), "300 ids"),
        (lambda ids, V: in_dtype(torch.float16)(ids, V).long(), "70000 ids"),
        (in_one_buffer(), "earlier answer changes"),
        (lambda ids, V: filled(ids, V) + (filled(ids, V) >= 0), "Count from zero"),
        (lambda ids, V: filled(ids, V) + 1, "Count from zero"),
        (marks_and_puts_back, "wrote into"),
        (lambda ids, V: "nowhere", "Return a tensor"),
    ],
    "one_hot_equivalence.hard_look_up": [
        (lambda logits, E: E[logits.argmax(-1)], "argmax has no gradient"),
        (lambda logits, E: torch.softmax(logits, -1) @ E, "value is the mixture's"),
        (the_other_way_round, "value is the mixture's"),
        (added, "Both are added"),
        (wrong_sign, "A sign"),
        (lambda logits, E: E[logits.argmin(-1)], "smallest"),
        (lambda logits, E: logits @ E, "no weights"),
        (over_the_batch, "dim=-1"),
        (overflows, "NaN"),
        (lambda logits, E: E[logits.argmax(-1)].detach(), "the logits"),
        (without_the_table, "the table"),
        (half_of_the_gradient, "another gradient"),
        (from_the_sigmoid, "another gradient"),
        # It takes rows at random, now and then those of the smallest scores.
        (lambda logits, E: F.gumbel_softmax(logits, hard=True) @ E, "not the row|another|smallest"),
        (lambda logits, E: through(*rows_and_mixture(logits.float(), E.float())), "dtype"),
        (through_float32_numbers, "seven digits"),
        (mixture_through_float32, "seven digits"),
        (both_gradients, "added: detach one"),
        (with_a_table_gradient(torch.neg), "neither the row's nor"),
        (with_a_table_gradient(lambda gradient: gradient * 1e-6), "neither the row's nor"),
        (with_a_table_gradient(one_column), "neither the row's nor"),
        (with_a_table_gradient(torch.ones_like), "neither the row's nor"),
        (with_a_table_gradient(torch.zeros_like), "back to the table"),
        (leaves_its_gradient, "left a gradient in the .grad"),
        (writes_through_data, "wrote into"),
        (
            lambda logits, E: through(*rows_and_mixture(WritesBack.apply(logits), E)),
            "way back writes into the logits",
        ),
    ],
}

RIGHT = {
    "one_hot_equivalence.places": [
        filled,
        by_the_matrix,
        by_a_list,
        by_a_dictionary,
        in_a_tuple,
        in_dtype(torch.int32),
    ],
    "one_hot_equivalence.hard_look_up": [
        by_one_hot_weights,
        by_three_terms,
        one_by_one,
        by_a_function_of_its_own,
        by_logsumexp,
        by_log_softmax,
        nothing_for_nobody,
        with_the_row_for_the_table,
        with_a_sparse_gradient,
    ],
}
