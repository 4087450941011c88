"""Lesson 02 and its side lesson: wrong answers that readers give, and a part of the hint that each
should get; and right answers of unusual make.
"""

import fractions
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ------------------------------------------------------------------ a linear layer as a table


def rows_of(linear):
    """The rows that the table should have."""
    rows = linear.weight.detach().T.clone()
    return rows if linear.bias is None else rows + linear.bias.detach()


def table_of(rows, **options):
    return nn.Embedding.from_pretrained(rows, **{"freeze": False, **options})


def aliased(linear):
    """Right with a bias: the sum is new memory. Without one it is a view."""
    rows = linear.weight.detach().T
    return table_of(rows if linear.bias is None else rows + linear.bias.detach())


def aliased_where_contiguous(linear):
    rows = linear.weight.detach().T.contiguous()
    return table_of(rows if linear.bias is None else rows + linear.bias.detach())


def untransposed(linear):
    weight = linear.weight.detach().clone()
    return table_of(weight if linear.bias is None else weight.T + linear.bias.detach())


def transposed_where_it_must(linear):
    weight = linear.weight.detach().clone()
    if weight.shape != (linear.in_features, linear.out_features):
        weight = weight.T.clone()
    return table_of(weight if linear.bias is None else weight + linear.bias.detach())


def bias_before_the_transposition(linear):
    weight = linear.weight.detach().clone()
    if linear.bias is not None:
        weight = weight + (linear.bias if linear.in_features == linear.out_features else 0)
    rows = weight.T.clone()
    square = linear.in_features == linear.out_features
    return table_of(rows if square or linear.bias is None else rows + linear.bias.detach())


def reshaped(linear):
    return table_of(linear.weight.detach().clone().reshape(linear.in_features, -1))


def in_float32(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    with torch.no_grad():
        table.weight.copy_(rows_of(linear))
    return table


def filled_without_no_grad(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    table.weight.copy_(linear.weight.T)
    return table


def filled_from_the_wrong_side(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    with torch.no_grad():
        table.weight.copy_(linear.weight)
    return table


def adds_into_the_layer(linear):
    with torch.no_grad():
        if linear.bias is not None:
            linear.weight += linear.bias[:, None]
    return table_of(linear.weight.detach().T.clone())


def forgets_the_bias_and_takes_it_off(linear):
    rows = rows_of(linear)
    linear.bias = None
    return table_of(rows)


def freezes_the_layer(linear):
    linear.requires_grad_(False)
    return table_of(rows_of(linear))


def no_parameter(linear):
    table = nn.Embedding(linear.in_features, linear.out_features)
    del table.weight
    table.weight = rows_of(linear)
    return table


def too_few_by_name(linear):
    table = nn.Embedding(1 + linear.in_features, linear.out_features)
    table.weight = nn.Parameter(rows_of(linear))
    return table


def autograd_left_off(linear):
    torch.set_grad_enabled(False)
    return table_of(rows_of(linear))


def by_the_stack(linear):
    every = torch.eye(linear.in_features, dtype=linear.weight.dtype)
    with torch.no_grad():
        return table_of(linear(every))


def by_copying(linear):
    weight = linear.weight
    table = nn.Embedding(*weight.T.shape, dtype=weight.dtype)
    with torch.no_grad():
        table.weight.copy_(weight.T)
        if linear.bias is not None:
            table.weight.add_(linear.bias)
    return table


def by_columns(linear):
    with torch.no_grad():
        bias = 0 if linear.bias is None else linear.bias
        rows = [linear.weight[:, i] + bias for i in range(linear.in_features)]
    table = nn.Embedding(linear.in_features, linear.out_features, sparse=True)
    table.weight = nn.Parameter(torch.stack(rows))
    return table


def through_numpy(linear):
    rows = rows_of(linear).double().numpy().copy()
    return nn.Embedding(*rows.shape, _weight=torch.from_numpy(rows).to(linear.weight.dtype))


class Words(nn.Embedding):
    """An embedding under another name."""


def a_subclass(linear):
    return Words.from_pretrained(rows_of(linear), freeze=False)


def the_bias_on_the_wrong_axis(linear):
    rows = linear.weight.detach().T.clone()
    return table_of(rows if linear.bias is None else rows + linear.bias.detach()[:, None])


def with_another_parameter(linear):
    rows = rows_of(linear)
    linear.weight = nn.Parameter(linear.weight.detach().clone())
    return table_of(rows)


def zeroed_and_restored(linear):
    rows, weight = rows_of(linear), linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight.copy_(weight)
    return table_of(rows)


def in_eval_mode(linear):
    return table_of(rows_of(linear.eval()))


def in_train_mode(linear):
    return table_of(rows_of(linear.train()))


def leaves_a_hook(linear):
    linear.register_forward_hook(lambda *given: None)
    return table_of(rows_of(linear))


def leaves_a_gradient(linear):
    if linear.weight.requires_grad:
        linear(torch.ones(linear.in_features, dtype=linear.weight.dtype)).sum().backward()
    return table_of(rows_of(linear))


def clears_a_gradient(linear):
    linear.zero_grad()
    return table_of(rows_of(linear))


def keeps_the_layer(linear):
    table = table_of(rows_of(linear))
    table.source = linear
    return table


def frozen_with_the_layer(linear):
    return table_of(rows_of(linear)).requires_grad_(linear.weight.requires_grad)


def one_for_all():
    """One table for each size and dtype, filled anew at each call."""
    tables = {}

    def one(linear):
        rows = rows_of(linear)
        table = tables.setdefault((rows.shape, rows.dtype), table_of(rows.clone()))
        with torch.no_grad():
            table.weight.copy_(rows)
        return table

    return one


def through_float32(linear):
    return table_of(rows_of(linear).float().to(linear.weight.dtype))


def through_bfloat16(linear):
    return table_of(rows_of(linear).bfloat16().to(linear.weight.dtype))


def as_bytes(linear):
    """The ids of the last rows do not fit into int8 once there are 60 rows in steps of 4."""
    rows = rows_of(linear)
    places = (4 * torch.arange(len(rows))).to(torch.int8).long() // 4 % len(rows)
    return table_of(rows[places])


def under_inference_mode(linear):
    with torch.inference_mode():
        return table_of(rows_of(linear))


def too_wide_by_name(linear):
    table = nn.Embedding(linear.in_features, 1 + linear.out_features)
    table.weight = nn.Parameter(rows_of(linear))
    return table


def with_a_hook(register):
    def hooked(linear):
        table = table_of(rows_of(linear))
        register(table.weight)
        return table

    return hooked


def halve(weight):
    weight.grad /= 2


class Half(nn.Embedding):
    """Half of each row's gradient is detached."""

    def forward(self, ids):
        return (super().forward(ids) + super().forward(ids).detach()) / 2


class LongOnly(nn.Embedding):
    def forward(self, ids):
        if ids.dtype != torch.int64:
            raise TypeError("int64 wanted")
        return super().forward(ids)


class NoEmptyBatch(nn.Embedding):
    def forward(self, ids):
        return super().forward(ids + 0 * ids.max())


def with_a_forward_of_its_own(linear):
    """A copy of this table looks up in the first one."""
    table = table_of(rows_of(linear))
    table.forward = lambda ids: table.weight[ids]
    return table


def without_copies(linear):
    table = table_of(rows_of(linear))
    table.source = (row for row in [linear])
    return table


def of_bounded_rows(linear):
    """No bound at all."""
    return table_of(rows_of(linear), max_norm=math.inf)


# ------------------------------------------------------------------ the price


def work_of(widths):
    return sum(a * b for a, b in zip(widths, widths[1:], strict=False))


def by_memory(N, widths, percent):
    return widths[0] // 3


def by_work(N, widths, percent):
    return percent * work_of(widths) // (100 * widths[0])


def smaller(memory=by_memory, work=by_work):
    return lambda N, widths, percent: min(memory(N, widths, percent), work(N, widths, percent))


def eats_the_list(N, widths, percent):
    V = smaller()(N, widths, percent)
    widths.pop()
    return V


def by_trying(N, widths, percent):
    def fits(V):
        work = 2 * N * V * widths[0] * 100 <= percent * 2 * N * work_of(widths)
        return work and 12 * N * V <= 4 * N * widths[0]

    return max(V for V in range(widths[0] + 1) if fits(V))


def by_tensors(N, widths, percent):
    sizes = torch.tensor(widths)
    work = percent * (sizes[1:] * sizes[:-1]).sum() // (100 * sizes[0])
    return torch.minimum(sizes[0] // 3, work)


def by_numpy(N, widths, percent):
    sizes = np.array(widths)
    return np.minimum(sizes[0] // 3, percent * (sizes[1:] @ sizes[:-1]) // (100 * sizes[0]))


def by_fractions(N, widths, percent):
    work = fractions.Fraction(percent, 100) * work_of(widths) / widths[0]
    return float(math.floor(min(work, fractions.Fraction(widths[0], 3))))


def with_work(work):
    """Right but for the bound by work, a function of percent, the layers' a * b, D and widths."""
    return lambda N, widths, percent: min(
        widths[0] // 3, work(percent, work_of(widths), widths[0], widths)
    )


def by_whole_floats(N, widths, percent):
    return float(np.floor(min(widths[0] / 3, percent * work_of(widths) / (100 * widths[0]))))


def by_counting_up(N, widths, percent):
    V = 0
    while 12 * (V + 1) <= 4 * widths[0] and 100 * (V + 1) * widths[0] <= percent * work_of(widths):
        V += 1
    return V


def by_batches(N, widths, percent):
    rows, layers = 4 * N * widths[0], 2 * N * work_of(widths)
    return min(rows // (12 * N), layers * percent // (200 * N * widths[0]))


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
    "one_hot_equivalence.as_table": [
        (lambda linear: table_of(linear.weight.detach().T.clone()), "bias is missing"),
        (
            lambda linear: table_of(linear.weight.detach().T + linear.bias.detach()),
            "have no bias",
        ),
        (aliased, "share memory"),
        (aliased_where_contiguous, "share memory"),
        (untransposed, "transpose"),
        (transposed_where_it_must, "in a column of A"),
        (bias_before_the_transposition, "after the transposition"),
        (reshaped, "reshape"),
        (lambda linear: nn.Embedding.from_pretrained(rows_of(linear)), "frozen"),
        (in_float32, "Keep the dtype"),
        (filled_without_no_grad, "no_grad"),
        (filled_from_the_wrong_side, "transpose"),
        (adds_into_the_layer, "changed the linear layer's weight"),
        (forgets_the_bias_and_takes_it_off, "changed the linear layer's bias"),
        (freezes_the_layer, "which parameters"),
        (no_parameter, "nn.Parameter"),
        (too_few_by_name, "says that it has"),
        (autograd_left_off, "autograd off"),
        (lambda linear: table_of(rows_of(linear), padding_idx=0), "padding_idx"),
        (lambda linear: table_of(rows_of(linear), scale_grad_by_freq=True), "scale_grad_by_freq"),
        (lambda linear: table_of(rows_of(linear), max_norm=0.01), "max_norm"),
        (lambda linear: table_of(rows_of(linear), max_norm=100.0), "max_norm"),
        (the_bias_on_the_wrong_axis, "bias stands along the wrong axis"),
        (with_another_parameter, "changed the linear layer's weight"),
        (zeroed_and_restored, "changed the linear layer's weight"),
        (in_eval_mode, "linear layer's training"),
        (in_train_mode, "linear layer's training"),
        (leaves_a_hook, "linear layer's _forward_hooks"),
        (leaves_a_gradient, "linear layer's weight.grad"),
        (clears_a_gradient, "linear layer's weight.grad"),
        (keeps_the_layer, "more parameters than its weight .source.weight"),
        (frozen_with_the_layer, "frozen.*given layer is"),
        (one_for_all(), "A second call"),
        (through_float32, "seven digits"),
        (through_bfloat16, "not the layer's"),
        (as_bytes, "60.*not the layer's"),
        (under_inference_mode, "inference_mode"),
        (too_wide_by_name, r"has (\d) rows of (\d) numbers.* has \1 of \d"),
        (with_a_hook(lambda weight: weight.register_hook(torch.zeros_like)), "learn as they"),
        (with_a_hook(lambda w: w.register_post_accumulate_grad_hook(halve)), "or a hook"),
        (lambda linear: Half.from_pretrained(rows_of(linear), freeze=False), "or a detach"),
        (lambda linear: LongOnly.from_pretrained(rows_of(linear), freeze=False), "int64 wanted"),
        (lambda linear: NoEmptyBatch.from_pretrained(rows_of(linear), freeze=False), "shape .0"),
        (with_a_forward_of_its_own, "A copy of your table"),
        (without_copies, "A copy of your table"),
        (lambda linear: nn.Embedding(linear.in_features, linear.out_features), "not the layer's"),
        (lambda linear: rows_of(linear), "nn.Embedding"),
        (lambda linear: linear, "nn.Embedding"),
    ],
    "one_hot_equivalence.largest_vocabulary": [
        (by_memory, "product's operations are bounded too"),
        (by_work, "vectors' bytes are bounded too"),
        (lambda *given: max(by_memory(*given), by_work(*given)), "Both conditions"),
        (smaller(memory=lambda N, widths, percent: widths[0]), "float32 vectors alone"),
        (smaller(memory=lambda N, widths, percent: widths[0] // 2), "int64 vectors alone"),
        (
            smaller(work=lambda N, widths, percent: percent * widths[1] // 100),
            "next layer only",
        ),
        (
            smaller(work=lambda N, widths, percent: percent * work_of(widths) // widths[0]),
            "hundredths",
        ),
        (smaller(work=lambda *given: by_work(*given) * given[0]), "N cancels"),
        (smaller(work=lambda *given: by_work(*given) // given[0]), "N cancels"),
        (smaller(memory=lambda *given: by_memory(*given) // given[0]), "N cancels"),
        (lambda *given: smaller()(*given) - 1, "One more fits"),
        (lambda *given: smaller()(*given) + 1, "One too many"),
        (
            lambda N, widths, percent: min(
                widths[0] // 3, -(-percent * work_of(widths) // (100 * widths[0])) - 1
            ),
            "One more fits",
        ),
        (
            lambda N, widths, percent: min(
                widths[0] / 3, percent * work_of(widths) / (100 * widths[0])
            ),
            "a whole one",
        ),
        (
            lambda N, widths, percent: min(
                widths[0] // 3, percent * sum(widths) // (100 * widths[0])
            ),
            "operations|allowed",
        ),
        (lambda N, widths, percent: 999, "allowed"),
        (with_work(lambda percent, layers, D, _: int(percent / 100 * layers / D)), "Floats"),
        (with_work(lambda percent, layers, D, _: int(percent / 100 * layers // D)), "Floats"),
        (with_work(lambda percent, layers, D, _: int(0.01 * percent * layers / D)), "Floats"),
        (with_work(lambda percent, layers, D, _: layers // D * percent // 100), "Round down once"),
        (with_work(lambda p, ab, D, w: p * (ab + sum(w[1:])) // (100 * D)), "biases"),
        (with_work(lambda p, ab, D, w: p * (2 * ab + sum(w[1:])) // (200 * D)), "biases"),
        (with_work(lambda p, ab, D, w: p * work_of(w[1:]) // (100 * D)), "first layer out"),
        (with_work(lambda p, ab, D, w: p * work_of(w[:-1]) // (100 * D)), "last layer out"),
        (with_work(lambda p, ab, D, w: p * ab // (200 * D)), "Both are products"),
        (with_work(lambda p, ab, D, w: round(p * ab / (100 * D))), "Round down"),
        (
            with_work(lambda p, ab, D, w: min(p, 100) * ab // (100 * D)),
            "you say .* allowed",
        ),
        (
            with_work(lambda p, ab, D, w: by_work(1, w, p) if len(w) > 1 else D),
            r"\[\d+\], \d+. you say",
        ),
        (smaller(memory=lambda N, widths, percent: (widths[0] - 2) // 3), "own 8 bytes"),
        (smaller(memory=lambda N, widths, percent: (widths[0] - 1) // 3), "One more fits"),
        (smaller(memory=lambda N, widths, percent: -(-widths[0] // 3)), "Round down"),
        (lambda N, widths, percent: 10**400, "beyond all bounds"),
        (lambda N, widths, percent: math.inf, "beyond all bounds"),
        (lambda N, widths, percent: math.nan, "beyond all bounds"),
        (with_work(lambda p, ab, D, w: p * work_of(w[:5]) // (100 * D)), "you say .* allowed"),
        (eats_the_list, "changed the list"),
        (lambda N, widths, percent: (85, 64), "should be a number"),
    ],
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
    "one_hot_equivalence.as_table": [
        by_the_stack,
        by_copying,
        by_columns,
        through_numpy,
        a_subclass,
        of_bounded_rows,
    ],
    "one_hot_equivalence.largest_vocabulary": [
        smaller(),
        by_trying,
        by_tensors,
        by_numpy,
        by_fractions,
        by_whole_floats,
        by_counting_up,
        by_batches,
    ],
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
