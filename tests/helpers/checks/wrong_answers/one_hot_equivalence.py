"""Lesson 02: wrong answers and a part of their hints; right answers of unusual make."""

import math

import torch
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
}
