"""Checks of lesson 01 and its side lesson: look-ups, ids, equal rows, padding."""

import numbers

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import (
    NoIndexing,
    Wrong,
    between,
    call,
    called,
    close,
    describe,
    elsewhere,
    exercise,
    ids_of,
    kinds,
    number,
    recognise,
    same,
    same_gradient,
    shapes,
    switched_off,
)


@exercise
def look_up(answer):
    """A function (ids, weight) -> rows, for ids of any shape, without indexing by [ids]."""
    sizes = [(between(3, 6), between(7, 9)), (1, 4), (5, 1), (4, 4)]
    for (V, D), (dtype_of_ids, dtype) in zip(sizes, kinds(), strict=True):
        for shape in shapes():
            ids = ids_of(V, shape, dtype_of_ids)
            _looked_up(answer, ids, torch.randn(V, D, dtype=dtype, requires_grad=True))
    ids = ids_of(300, (2, 3, 2, 3))
    _looked_up(answer, ids, torch.randn(300, 2, requires_grad=True))
    elsewhere(answer, ids, torch.randn(300, 2))
    return "Ids of any shape, an empty batch included: the same rows as F.embedding."


def _looked_up(answer, ids, weight):
    """`Wrong` unless `answer` looks these ids up as PyTorch does, gradient included."""
    not_so = "Indexing and F.embedding are switched off in this exercise: use index_select."
    hints = {
        "of 0 elements": "Right until a batch is empty: nobody can guess -1 from no numbers. Name "
        "the size.",
        "expected scalar type": "A dtype is written down in your function, and here it is another. "
        "Take it as it comes.",
        not_so: not_so,
    }
    shape, truth = tuple(ids.shape), F.embedding(ids, weight)
    with NoIndexing(not_so), switched_off(F, "embedding", not_so):
        rows, (_, given) = called(answer, ids, weight, hints=hints)
    if isinstance(rows, torch.Tensor) and rows.shape != truth.shape:
        if rows.numel() == truth.numel() and close(rows.flatten(), truth.flatten()):
            raise Wrong(f"The rows are right, but ids of shape {shape} should keep their axes.")
        if ids.dim() == 1 and rows.shape == (weight.shape[0], *shape):
            raise Wrong("You took columns of the weight. Rows are counted by axis 0.")
        if rows.dim() > truth.dim():
            raise Wrong(
                f"Ids of shape {shape} give {tuple(truth.shape)}; yours has an axis too many, "
                f"{tuple(rows.shape)}."
            )
    same(rows, truth, f"The answer for ids of shape {shape}")
    if not torch.equal(rows, truth):
        raise Wrong(f"For ids of shape {shape} the shape is right, but the rows are not.")
    same_gradient(rows, truth, given, weight)
    if rows.numel() and rows.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
        raise Wrong("Your answer is a view: who writes into it changes the table. Return a copy.")


@exercise
def to_ids(answer):
    """A function raw -> (ids, V): dense ids for arbitrary numbers."""
    n, most = between(100, 10**6), 2**63 - 1
    # numbers that float32, float64, int32, abs or a remainder would take for the same
    some = torch.tensor([n, -n, n + 2**32, 2**53, 2**53 + 1, n + 1, 0, 10 * n, 7])
    ends = torch.tensor([most, most - 1, -most, -most - 1, 0])
    for shape in shapes():
        raw = some[torch.randint(9, shape)]
        _dense(answer, torch.cat([some, raw]) if len(shape) == 1 and raw.numel() else raw)
    _dense(answer, ends[torch.randperm(10).reshape(2, 5) % 5])
    _dense(answer, torch.randint(-(10**12), 10**12, (300,)).repeat(2))
    return "Ids without holes, one for each customer, and a table without a wasted row."


def _dense(answer, raw):
    """`Wrong` unless `answer` gives these raw numbers dense ids."""
    shape = tuple(raw.shape)
    where = f"For no customers at all, shape {shape}: " if not raw.numel() else ""
    keys = "Two tensors are never the same key of a dictionary: use the numbers, raw.tolist()."
    pair = call(answer, raw, hints=_of_nobody(shape, raw) | {"tensor(": keys})
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise Wrong(f"Return a pair, ids and V, not {describe(pair)}.")
    ids, V = pair
    distinct = raw.unique()
    if isinstance(V, torch.Tensor) and V.shape == raw.shape and raw.numel() > 1:
        raise Wrong(
            "The second thing that torch.unique returns has the shape of raw: these are the ids, "
            "the first of the pair. V is how many different customers there are."
        )
    if not isinstance(ids, torch.Tensor) or ids.shape != raw.shape:
        raise Wrong(f"{where}ids should be a tensor of shape {shape}, like raw; not {_kind(ids)}.")
    if ids.dtype not in (torch.int64, torch.int32):
        empty = "" if raw.numel() else " (torch.tensor([]) is float32: name the dtype)"
        raise Wrong(f"{where}ids should be whole numbers (int64), not {ids.dtype}{empty}.")
    V = number(V, "V")
    if not isinstance(V, numbers.Integral):
        raise Wrong(f"V should be a whole number, not {describe(V)}.")
    if ids.numel() and ids.min() < 0:
        raise Wrong("An id is negative. Raw numbers are no ids: those run from 0 to V - 1.")
    pairs = torch.stack([raw.flatten(), ids.flatten()]).unique(dim=1).shape[1]
    if pairs > len(distinct):
        raise Wrong("The same customer got different ids at different places.")
    if len(ids.unique()) < len(distinct):
        raise Wrong("Two different customers got the same id, so they would share a row.")
    if ids.numel() and ids.max().item() >= V:
        raise Wrong(f"The largest id is {ids.max()}, too large for a table of {V:.0f} rows.")
    if V > len(distinct):
        raise Wrong(f"V is {V:.0f} for {len(distinct)} different customers: rows are wasted.")
    if V < len(distinct):
        raise Wrong(f"V is {V:.0f}, and there are {len(distinct)} different customers.")


def _of_nobody(shape, raw):
    """What to say of the errors that an empty batch of customers brings about."""
    if raw.numel():
        return {}
    said = f"It fails for no customers at all, shape {shape}: ask how many there are, not for the "
    return dict.fromkeys(("numel() == 0", "non-zero size", "zero size", "empty"), said + "largest.")


def _kind(value):
    return describe(value) if not isinstance(value, torch.Tensor) else f"shape {tuple(value.shape)}"


@exercise
def smallest_dimension(answer):
    """A function (V, p) -> smallest D with fewer than one expected pair of equal rows."""
    cases = [(300, 0.1), (10**6, 0.5), (6, 1 / 15), (10, 1 / 45), (3, 0.97 / 3), (10**6, 0.99)]
    cases += [(between(2, 10**6), 1 / between(2, 10**4)) for _ in range(4)]
    cases += [(3, 0.9), (2, 0.5), (1, 0.5)]
    said = [(V, p, _dimension(answer, V, p)) for V, p in cases]
    wrong = [(V, p, D) for V, p, D in said if D != _first(V * (V - 1) / 2, p)]
    if not wrong:
        return "Pairs grow with the square of V, and every dimension multiplies them by p."
    mistakes = {
        "You counted rows equal to one given row. Any two of V rows may be equal.": lambda V: V,
        "Too many for most: did you count each pair twice?": lambda V: V * (V - 1),
        "Too many for most: did you count each pair twice, and a row with itself?": lambda V: V**2,
        "A row makes no pair with itself. V rows make V(V - 1)/2.": lambda V: V * V / 2,
    }
    for hint, pairs in mistakes.items():  # a mistake that explains all that was said
        if all(D == _first(pairs(V), p) for V, p, D in said):
            raise Wrong(hint)
    V, p, D = wrong[0]
    expected = V * (V - 1) / 2 * p**D
    lead = f"For V = {V} and p = {p:.3g} you say D = {D}"
    if abs(expected - 1) < 1e-9:
        raise Wrong(f"{lead}: exactly one pair is expected there. Fewer are wanted.")
    if expected > 1:
        raise Wrong(f"{lead}; {expected:.3g} pairs are expected there.")
    raise Wrong(f"{lead}, and a smaller D is enough.")


def _dimension(answer, V, p):
    """What the answer says, if it is a whole number from 1 on."""
    value = number(call(answer, V, p), "The dimension")
    if not -(10**9) < value < 10**9 or value != int(value) or value < 1:
        raise Wrong(f"For V = {V} you say D = {str(value)[:9]}. D is a whole number from 1 on.")
    return int(value)


def _first(pairs, p):
    """The smallest D from 1 on for which `pairs` times p to the power of D is below one."""
    D = 1
    while pairs * p**D >= 1 - 1e-12:  # 15 times 1/15 is one, whatever rounding makes of it
        D += 1
    return D


@exercise
def sentence_vectors(answer):
    """A function (table, ids, pad) -> mean row of the words that are not padding."""
    for dtype_of_ids, dtype in kinds():
        for pad in ["first", "last", "other"]:
            V, D = between(6, 12), between(8, 11)  # D is no other size of these inputs
            pad = {"first": 0, "last": V - 1, "other": 3}[pad]
            _means(answer, _table(V, D, dtype), _lines(V, pad).to(dtype_of_ids), pad)
    for lines, length in [(1, 3), (1, 1), (3, 5), (4, 2)]:  # no padding at all
        _means(answer, _table(9, between(6, 8)), torch.randint(1, 9, (lines, length)), 0)
    long = torch.randint(300, (2, 330))
    long[1, 2:] = 299
    _means(answer, _table(300, 1), long, 299)
    twin = _table(5, 6)  # the row of word 2 is that of the padding
    with torch.no_grad():
        twin.weight[2] = twin.weight[0]
    _means(answer, twin, torch.tensor([[2, 1, 0], [2, 0, 0]]), 0)
    elsewhere(lambda ids: answer(twin, ids, 0), torch.tensor([[2, 1, 0], [2, 0, 0]]))
    return "More padding, the same vector, whatever the padding row holds."


def _table(V, D, dtype=torch.float32):
    """A table; of whole numbers where rounding is coarse, so that sums in any order are equal."""
    table = nn.Embedding(V, D, dtype=dtype)
    if dtype is torch.bfloat16:
        with torch.no_grad():
            table.weight.copy_(torch.randint(-3, 4, (V, D)))
    return table


def _lines(V, pad):
    """Lines of ids with padding at their ends; id 0 is a word in each, unless it is the padding."""
    words = torch.tensor([i for i in range(V) if i != pad])
    lines, length = between(3, 5), between(4, 7)
    ids = words[torch.randint(V - 1, (lines, length))]
    ids[:, 0] = words[0]
    for line, size in enumerate([1, 2, length - 1]):
        ids[line, size:] = pad
    return ids


def _settings(table):
    """What an answer should leave as it is, besides the weight's numbers."""
    kept = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse", "training")
    hooks = len(table._forward_hooks) + len(table._forward_pre_hooks)
    return [getattr(table, name) for name in kept] + [table.weight.requires_grad, hooks]


def _means(answer, table, ids, pad):
    """`Wrong` unless `answer` gives the means of these lines' words."""
    hints = {
        "leaf Variable": "You wrote into the table. Mask what comes out of it instead.",
        "must match the size": "The mask needs a last axis for the D numbers, above and below the "
        "line: unsqueeze(-1), or keepdim=True.",
    }
    weight, version = table.weight.detach().clone(), table.weight._version
    before = _settings(table)
    value, (_, given, _) = called(answer, table, ids.clone(), pad, copy=False, hints=hints)
    if not torch.equal(table.weight, weight) or table.weight._version != version:
        raise Wrong("You wrote into the table. Mask what comes out of it instead.")
    if given._version or not torch.equal(given, ids):
        raise Wrong("You wrote into the ids that you were given.")
    if _settings(table) != before:
        raise Wrong("You changed a setting of the table (such as padding_idx) and left it so.")
    mask = (ids != pad).unsqueeze(-1)
    rows = table(ids)
    truth = (rows * mask).sum(1) / mask.sum(1)
    if same(value, truth, "The mean"):
        if truth.dtype is not torch.bfloat16:
            same_gradient(value, truth, table.weight, table.weight)
        return
    rows = rows.detach()
    not_zero = (ids != 0).unsqueeze(-1)
    once = torch.stack([table.weight[line[line != pad].unique()].mean(0) for line in ids])
    recognise(
        value,
        [
            (rows.mean(1), "The padding row is in your mean. It may hold anything; mask it."),
            (
                (rows * mask).sum(1) / ids.shape[1],
                "You divide by the length of the rectangle, not by the number of words.",
            ),
            (
                (rows * ~mask).sum(1) / (~mask).sum(1),
                "You kept the padding and left the words out: turn the mask round.",
            ),
            (
                (rows * mask).sum(1),
                "That is the sum of the words' rows. Divide by how many there are.",
            ),
            (
                (rows * mask).sum(1) / mask.sum(),
                "You divide by the words of the whole batch. Each sentence has its own number: sum "
                "over dim=1.",
            ),
            (
                rows.sum(1) / mask.sum(1),
                "You divide by the right number, but the sum holds the padding row too.",
            ),
            (
                (rows * not_zero).sum(1) / not_zero.sum(1),
                "You masked id 0. Here padding is another id: use the argument pad.",
            ),
            (once.detach(), "A word that stands twice in a sentence counts twice in its mean."),
        ],
    )
    raise Wrong("The shape is right, but these are not the means of the words' rows.")
