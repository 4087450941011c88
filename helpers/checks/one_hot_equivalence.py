"""Checks of lesson 02: a linear layer as a table, the price of one-hot vectors, and, of its side
lesson, places and hard choices.
"""

import copy
import math
from itertools import pairwise, product

import torch
from torch import nn

from helpers.checks import (
    Wrong,
    between,
    call,
    called,
    close,
    describe,
    exercise,
    number,
    recognise,
    same,
)


def _equal(value, truth, error) -> bool:
    """Whether two tensors of one dtype are equal to `error`; `Wrong` where float32 shows."""
    if torch.allclose(value.detach(), truth.detach(), error, error):
        return True
    if truth.dtype is torch.float64 and close(value, truth):
        raise Wrong(
            "For float64 your numbers are right to seven digits only: they went through float32. "
            "Keep the dtype all the way."
        )
    return False


# ---------------------------------------------------------------------------- 1. a table


@exercise
@torch.autocast("cpu", enabled=False)  # even where the reader has switched it on
def as_table(answer):
    """A function nn.Linear(V, D) -> trainable nn.Embedding(V, D) with the same outputs."""
    for bias in (True, False):
        V, D = between(5, 8), between(2, 4)
        for rows, columns in [(V, D), (V, V), (V, 1), (1, D), (1, 1), (60, D)]:
            _one_table(answer, nn.Linear(rows, columns, bias=bias))
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            _one_table(answer, nn.Linear(V, D, bias=bias, dtype=dtype))
    _one_table(answer, nn.Linear(V, D).requires_grad_(False))
    used = nn.Linear(V, D).eval()
    used(torch.ones(V)).sum().backward()
    first, rows = _one_table(answer, used)
    second, _ = _one_table(answer, nn.Linear(V, D))
    if first is second or not torch.equal(first.weight, rows):
        raise Wrong("A second call changed the first one's table. Make a new one for each layer.")
    return "Aᵀ + b, in memory of its own, and it can learn."


def _one_table(answer, linear):
    """The reader's table for this layer, judged, and what its weight holds."""
    held, before = list(linear.parameters()), _state(linear)  # held, so that no id comes again
    A, b = (p.detach().clone() for p in [*held, torch.zeros((), dtype=held[0].dtype)][:2])

    table = call(answer, linear, hints=_hints(linear))
    if not isinstance(table, nn.Embedding):
        raise Wrong(f"Return an nn.Embedding, not {describe(table)}.")
    after = _state(linear)
    for name, value in before.items():
        if after.get(name, ...) != value:
            raise Wrong(
                f"You changed the linear layer's {name}, perhaps to put it back. Only read it."
            )
    _values(table, A, b)
    _trainable(table, linear)
    return table, _learns(table)


def _state(linear) -> dict:
    """What an answer should leave as it is, hooks and settings included."""
    found = {n: len(v) if isinstance(v, dict) else v for n, v in vars(linear).items()}
    for name, p in linear.named_parameters():
        found[name] = id(p), p._version, p.tolist()
        found[f"{name}.grad"] = None if p.grad is None else p.grad.tolist()
    return found | {
        "choice of which parameters learn": [p.requires_grad for p in linear.parameters()]
    }


def _hints(linear) -> dict[str, str]:
    V, D = linear.in_features, linear.out_features
    sides = f"Linear's weight is {D} x {V}, a table's is {V} x {D}: transpose."
    found = {
        "non-singleton dimension 0": "The bias stands along the wrong axis: it has one number for "
        f"each of the {D} columns of the table.",
        "must match the size": sides,
        "inconsistent tensor size": sides,
        "a leaf Variable": "Writing into a parameter needs `with torch.no_grad():` around it.",
        "same dtype": "Its numbers and your one-hot vectors have different dtypes. The layer may "
        "hold float64: make yours like linear.weight.dtype.",
    }
    if linear.bias is None:
        found["NoneType"] = "Some linear layers have no bias: there `linear.bias` is None."
    return found


def _values(table, A, b) -> None:
    """`Wrong` unless the table's rows are Aᵀ + b, in the dtype of A."""
    weight, truth, (D, V) = table.weight.detach(), A.T + b, A.shape
    what = f"For nn.Linear({V}, {D}, bias={b.dim() == 1})"
    if weight.shape != truth.shape:
        if weight.shape == (D, V):
            raise Wrong(f"Linear's weight is {D} x {V}, a table's is {V} x {D}: transpose.")
        raise Wrong(f"{what} the table's weight has shape {tuple(weight.shape)}, not {(V, D)}.")
    if weight.dtype != truth.dtype:
        raise Wrong(f"The layer holds {truth.dtype}, your table {weight.dtype}. Keep the dtype.")
    if (table.num_embeddings, table.embedding_dim) != (V, D):
        raise Wrong(
            f"The weight has {V} rows of {D} numbers, but the table says that it has "
            f"{table.num_embeddings} of {table.embedding_dim} (num_embeddings, embedding_dim)."
        )
    if _equal(weight, truth, {torch.float64: 1e-12, torch.float32: 1e-6}.get(A.dtype, 2e-3)):
        return
    mistakes = [
        (A.T, "The bias is missing: the layer adds b to every row."),
        (A.T - b, "You took the bias away. The layer adds it."),
        (A.T + 2 * b, "The bias is in your rows twice."),
        (A.reshape(V, D), "reshape puts the numbers in other places. Transpose: .T"),
        (A.reshape(V, D) + b, "reshape puts the numbers in other places. Transpose: .T"),
    ]
    if V == D:
        square = "For V = D no shape tells: an id's numbers stand in a column of A, so transpose."
        early = "The bias stands along the wrong axis: add it after the transposition, to each row."
        mistakes = [(A, square), (A + b, square), ((A + b).T, early), *mistakes]
    recognise(weight, mistakes)
    raise Wrong(f"{what} the rows are not the layer's outputs for one-hot vectors.")


def _trainable(table, linear) -> None:
    """`Wrong` unless the weight is a parameter, the only one, learns and has its own memory."""
    held = dict(table.named_parameters())
    if table.weight.is_inference():
        raise Wrong(
            "The rows are right, but a tensor made under torch.inference_mode() can never learn. "
            "Use torch.no_grad()."
        )
    if held.pop("weight", None) is not table.weight:
        raise Wrong("The rows are right, but no optimizer can hold this weight: nn.Parameter.")
    if held:
        raise Wrong(
            f"The table holds more parameters than its weight ({', '.join(held)}), and would train "
            "them too. Is the layer kept in it?"
        )
    if not table.weight.requires_grad:
        also = "" if linear.weight.requires_grad else " The given layer is; the table should learn."
        raise Wrong(f"The rows are right, but the table is frozen. freeze=False{also}")
    memory = [p.untyped_storage().data_ptr() for p in linear.parameters()]
    if table.weight.untyped_storage().data_ptr() in memory:
        raise Wrong(
            "The rows are right, but both layers share memory: a view such as .T, and sometimes "
            ".contiguous(), copies nothing."
        )
    if table.max_norm not in (None, math.inf):
        raise Wrong(
            "The table has a max_norm: its look-ups shrink long rows, and training makes rows long."
        )


def _learns(table):
    """`Wrong` where a look-up, one step back or a copy are not a plain table's; its rows."""
    rows, V = table.weight.detach().clone(), table.num_embeddings
    ids = torch.randperm(V).repeat(2).reshape(2, V)  # each id twice: frequencies show
    for some in (ids, ids.int(), ids[0, :0], ids[1, 0]):
        value = call(table, some, name="your table")
        if not same(value, rows[some.long()], f"The look-up of {describe(some)}"):
            raise Wrong("The weight is right, but a look-up gives other numbers than its rows.")
    if not torch.equal(table.weight, rows):
        raise Wrong("A look-up changes the table's rows.")

    upstream = torch.randint_like(rows[ids], -7, 8) + 0.5  # sums are exact in each dtype
    wanted = torch.zeros_like(rows).index_add(0, ids.flatten(), upstream.flatten(0, 1))
    value = table(ids)
    if value.requires_grad:
        value.backward(upstream)
    grad, table.weight.grad = table.weight.grad, None
    if grad is None or not close(grad.to_dense(), wanted) or not torch.equal(table.weight, rows):
        raise Wrong(
            "The rows are right, but they do not all learn as they should. Does the table have an "
            "option, such as padding_idx or scale_grad_by_freq, or a hook, or a detach?"
        )
    try:
        twin = copy.deepcopy(table)
        twin.load_state_dict({name: value + 1 for name, value in table.state_dict().items()})
        whole = torch.equal(twin(ids), (rows + 1)[ids]) and torch.equal(table(ids), rows[ids])
    except Exception:
        whole = False
    if not whole:
        raise Wrong("A copy of your table (deepcopy, then load_state_dict) is not such a table.")
    return rows


# ---------------------------------------------------------------------------- 2. the price


@exercise
def largest_vocabulary(answer):
    """A function (N, widths, percent) -> the largest V whose one-hot vectors are a detail."""
    N, networks = between(5, 7), []
    for _ in range(2):
        deep = [between(600, 700), *(between(200, 280) for _ in range(3))]
        many = [between(9000, 12000), *(between(100, 200) for _ in range(3))]
        wide = [between(600, 900), *(between(9000, 12000) for _ in range(between(1, 3)))]
        networks += [(N, deep, between(4, 5)), (N, many, between(8, 15)), (N, wide, between(8, 15))]
    networks += [(8192, [256, 256], 25)]  # exactly a quarter of the work
    networks += [(100, [D, 2000], 100) for D in (300, 301, 302)]  # the bytes, exactly and not
    networks += [(9, [30, 10, 10], 60), (9, [30, 10], 99), (9, [30, 10], 96)]  # rounding, biases
    networks += [(64, [256, 100], percent) for percent in (29, 57, 58)] + [(64, [256, 200], 29)]
    _vocabularies(answer, networks)
    ends = [(1, [D, 500], 100) for D in (1, 2, 3)]
    for layers in (1, 3, 4, 5):  # the work decides, and each layer counts
        thin = [between(300, 400), *(between(18, 24) for _ in range(layers))]
        ends += [(1, thin, between(150, 200))]
    ends += [(between(2, 9), [between(20, 40)], between(5, 200)), (5, [64, 64], 0)]
    _vocabularies(answer, networks + ends)
    return "V against the widths of the network, whatever the batch: N cancels twice."


def _layers(widths) -> int:
    return sum(a * b for a, b in pairwise(widths))


def _right(N, widths, percent) -> int:
    D = widths[0]
    return min(D // 3, percent * _layers(widths) // (100 * D))


def _mistaken(N, widths, percent):
    """(hint, V) of each mistake that may be made for this network."""
    D, layers, outputs = widths[0], _layers(widths), sum(widths[1:])
    memory, share, parts = D // 3, percent * layers, 100 * D
    work = share // parts
    ids = "The ids' own 8 bytes do not count: only the one-hot vectors do."
    biases = "The biases do not count."
    twos = "Both are products: the 2 in 2NVD stands in the layers' operations too."
    cancels = "The product has N lines, and the rows and all the layers have N too: N cancels."
    more = "One more fits: at most means that equal is allowed."
    many = "One too many. Round down."
    below, lower, above, higher = (D - 1) // 3, (share - 1) // parts, -(-D // 3), -(-share // parts)
    either = max(memory, work)
    bounds = [
        ("Both conditions must hold: take the smaller of the two V.", either, either),
        ("The bytes are right. But the product's operations are bounded too.", memory, memory),
        ("The operations are right. But the vectors' bytes are bounded too.", work, work),
        ("The float32 vectors alone would fit. int64 ones are alive beside them.", D, work),
        ("The int64 vectors alone would fit. float32 ones are made beside them.", D // 2, work),
        (ids, (D - 2) // 3, work),
        ("Percent are hundredths: divide by 100.", memory, share // D),
        ("You count the next layer only.", memory, percent * _layers(widths[:2]) // parts),
        ("You left the first layer out.", memory, percent * _layers(widths[1:]) // parts),
        ("You left the last layer out.", memory, percent * _layers(widths[:-1]) // parts),
        ("Round down once, at the end.", memory, layers // D * percent // 100),
        (biases, memory, percent * (layers + outputs) // parts),
        (biases, memory, percent * (2 * layers + outputs) // (2 * parts)),
        *((twos, memory, V) for V in (2 * share // parts, share // (2 * parts))),
        *((more, *both) for both in [(below, work), (memory, lower), (below, lower)]),
        (more, memory - 1, work - 1),
        *((many, *both) for both in [(above, work), (memory, higher), (above, higher)]),
        *((many, V, round(share / parts)) for V in (memory, round(D / 3))),
        (many, memory + 1, work + 1),
    ]
    scaled = [(bound, bound * N, bound // N) for bound in (memory, work)]
    bounds += [(cancels, *both) for both in list(product(*scaled))[1:]]
    return [(hint, min(both)) for hint, *both in bounds]


def _vocabularies(answer, networks) -> None:
    """Judge what the reader says of these networks; a mistake that explains it all is named."""
    said = [_said(answer, *network) for network in networks]
    wrong = [(net, V) for net, V in zip(networks, said, strict=True) if V != _right(*net)]
    if not wrong:
        return
    for column in zip(*(_mistaken(*network) for network in networks), strict=True):
        if [V for _, V in column] == said:
            raise Wrong(column[0][0])
    exact = [percent * _layers(w) == 100 * w[0] * (V + 1) for (_, w, percent), V in wrong]
    if all(exact):  # and a quarter was right, so that it is no < for <=
        raise Wrong("Floats lose one: multiply first, then divide whole numbers with //.")
    (N, widths, percent), V = wrong[0]
    share = 2 * N * _layers(widths) * percent / 100
    raise Wrong(
        f"For ({N}, {widths}, {percent}) you say {V}. Its vectors take {12 * N * V:,} bytes "
        f"({4 * N * widths[0]:,} allowed), the product {2 * N * V * widths[0]:,} operations "
        f"({share:,.0f} allowed)."
    )


def _said(answer, N: int, widths: list[int], percent: int) -> int:
    given = list(widths)
    value = number(call(answer, N, given, percent), "V")
    if given != widths:
        raise Wrong("Your function changed the list of widths. Leave it as it was.")
    if not -(10**15) < value < 10**15:
        raise Wrong("V is at most a third of widths[0]. You say a number beyond all bounds.")
    if value != int(value):
        raise Wrong(f"V is a number of rows, so a whole one; you say {float(value):.6g}.")
    return int(value)


# ---------------------------------------------------------------------------- side lesson


@exercise
def places(answer):
    """A function (ids, V) -> for each row a place where it stands among the ids, or -1."""
    clear = [([2, 0, 3, 1, 4], 5), ([3, 1, 3, 4, 3, 4], 6)]  # no mistake equals another here
    kept = [_one_batch(answer, torch.tensor(ids), V) for ids, V in clear]
    for V in [between(5, 8), 1, *(between(2, 9) for _ in range(3))]:
        some = torch.randperm(V)
        twice = torch.cat([some, some[:2]])
        batches = [some, twice, some[1:], torch.cat([some[1:], some[1:]]), some[:0], some[:1]]
        batches += [torch.arange(V), torch.arange(V - 1), torch.randint(V, (V,)), twice.int()]
        kept += [_one_batch(answer, ids, V) for ids in batches]
    many = torch.zeros(70_000, dtype=torch.int64)
    many[-3:-1] = torch.tensor([3, 1])
    for ids, V in [(torch.randperm(300), 300), (many, 5)]:
        kept += [_one_batch(answer, ids, V)]
    if not all(torch.equal(back, before) for back, before in kept):
        raise Wrong("An earlier answer changes at a later call. Make a new tensor each time.")
    return "Where no -1 is left, rows[back] is the table again: the selection can be undone."


def _one_batch(answer, ids, V: int):
    """The reader's places for these ids, judged, and a copy of them."""
    value = call(answer, ids, V)
    try:
        if isinstance(value, list | tuple):
            value = [p.item() if isinstance(p, torch.Tensor) else p for p in value]
        back = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"Return a tensor of {V} places, not {describe(value)}.") from None
    given = f"For {f'ids {ids.tolist()}' if len(ids) < 20 else f'{len(ids)} ids'} and V = {V}"
    if back.shape != (V,):
        raise Wrong(
            f"{given} your answer has shape {tuple(back.shape)}: one place for each of the V rows, "
            f"({V},), is wanted."
        )
    if back.is_floating_point() or back.is_complex() or back.dtype == torch.bool:
        raise Wrong(f"Places are whole numbers, not {back.dtype}.")
    told, said = ids.tolist(), back.tolist()
    standing = set(told)

    def stands(row, place):
        return 0 <= place < len(told) and told[place] == row

    if all(stands(row, p) if row in standing else p == -1 for row, p in enumerate(said)):
        return back, back.clone()
    if back.dtype not in (torch.int64, torch.int32):
        ends = torch.iinfo(back.dtype)
        raise Wrong(
            f"{back.dtype} holds {ends.min} to {ends.max}, and a place may be any number from -1 "
            "on. Use int64."
        )
    if standing and all(stands(n, p - 1) if n in standing else p < 1 for n, p in enumerate(said)):
        raise Wrong(f"{given} each place is one too large. Count from zero.")
    for row, place in enumerate(said):
        if row not in standing and place != -1:
            raise Wrong(f"{given} row {row} stands nowhere, and you say {place}: -1 is wanted.")
        if row in standing and place < 0:
            raise Wrong(f"{given} row {row} does stand there, and you say {place}.")
    if said == told:
        raise Wrong(f"{given} you say the ids themselves. Which place does row 0 stand at?")
    if said == ids.bincount(minlength=V).tolist():
        raise Wrong(f"{given} you count how often each row stands there. Where does it stand?")
    row = next(row for row in standing if not stands(row, said[row]))
    raise Wrong(f"{given} row {row} does not stand at {said[row]}: ids[back] is 0, 1, 2 and so on.")


@exercise
@torch.autocast("cpu", enabled=False)  # even where the reader has switched it on
def hard_look_up(answer):
    """A function (logits, E) -> rows of the largest scores, with the gradient of the mixture."""
    for dtype, error in [(torch.float32, 1e-4), (torch.float64, 1e-10)]:
        V, D, n = between(3, 6), between(2, 5), between(2, 4)
        for v, d in [(V, D), (V, V), (V, 1), (1, D)]:
            for shape in [(n,), (), (v,), (n, v), (2, n, 3), (0,)]:
                _one_choice(answer, _scores(*shape, v).to(dtype), d, error)
        for far in (-1000, 1000):  # float32 has three digits left behind the point
            _one_choice(answer, far + _scores(n, V).to(dtype), D, 20 * error)
            _one_choice(answer, far * _scores(n, V).to(dtype), D, 20 * error)
    return "The value of a look-up, and the gradient of a mixture: a straight-through estimator."


def _scores(*shape):
    """Random scores about zero, the largest of which is so clearly."""
    ranks = torch.rand(shape).argsort(-1) - shape[-1] // 2
    return 0.8 * ranks + 0.4 * torch.rand(shape)


def _one_choice(answer, logits, D, error) -> None:
    """Judge the reader's rows for these scores and a table of D columns."""
    logits = logits.requires_grad_()
    E = torch.randn(logits.shape[-1], D, dtype=logits.dtype).requires_grad_()
    value, mine = called(answer, logits, E)
    mixture, rows = torch.softmax(logits, -1) @ E, E[logits.argmax(-1)]
    same(value, rows, f"The answer for logits of shape {tuple(logits.shape)}")
    if value.isnan().any():
        raise Wrong("Large scores, or very small ones, give NaN. torch.softmax takes care of that.")
    if not _equal(value, rows, error):
        soft, hard = mixture.detach(), rows.detach()
        mistakes = [
            (soft, "The value is the mixture's. Wanted is the row of the largest score."),
            (
                soft + hard,
                "Both are added. Take the mixture's value off: detached, it has no gradient to "
                "lose.",
            ),
            (2 * soft - hard, "A sign: add the row and take the mixture off, both detached."),
            (E[logits.argmin(-1)].detach(), "That is the row of the smallest score."),
            (logits.detach() @ E.detach(), "The scores themselves are no weights."),
        ]
        recognise(value, mistakes)
        raise Wrong("The shape is right, but these are not the rows of the largest scores.")
    if rows.numel():  # nothing can carry a gradient else
        _learnt(value, mixture, rows, mine, (logits, E), error)
    for name, given, before in zip(("logits", "table"), mine, (logits, E), strict=True):
        if given.grad is not None:
            raise Wrong(f"You left a gradient in the .grad of the {name}. Return rows, no more.")
        if not torch.equal(given, before):
            raise Wrong(f"Your answer's way back writes into the {name}.")


def _learnt(value, mixture, rows, mine, theirs, error) -> None:
    """`Wrong` unless logits get the mixture's gradient, and the table that or the row's."""
    cut = "The rows are right, but no gradient gets back to the {}: it was detached, or has none."
    upstream = torch.randn_like(mixture)
    inputs = {"allow_unused": True, "retain_graph": True}
    wanted, of_mixture = torch.autograd.grad(mixture, theirs, upstream, **inputs)
    (of_row,) = torch.autograd.grad(rows, theirs[1], upstream)
    if not value.requires_grad:
        raise Wrong(cut.format("logits"))
    found, of_table = torch.autograd.grad(value, mine, upstream, **inputs)
    if found is None:
        raise Wrong(cut.format("logits") + " argmax has no gradient; a mixture has one.")
    if not _equal(found, wanted, error):
        axes = range(theirs[0].dim() - 1)
        for over in (torch.softmax(theirs[0], d) @ theirs[1] for d in axes):
            if close(found, torch.autograd.grad(over, theirs[0], upstream)[0]):
                raise Wrong("Right rows, but your softmax runs over the batch: dim=-1.")
        raise Wrong("The rows are right, but the logits get another gradient than the mixture's.")
    of_table = torch.zeros(()) if of_table is None else of_table.to_dense()
    if not of_table.any():
        raise Wrong(cut.format("table"))
    if _equal(of_table, of_row, error) or _equal(of_table, of_mixture, error):
        return
    if close(of_table, of_row + of_mixture):
        raise Wrong("The table gets the row's gradient and the mixture's added: detach one.")
    raise Wrong("The table's gradient is neither the row's nor the mixture's.")
