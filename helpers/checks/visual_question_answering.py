"""Checks of lesson 10 and its side lessons: what a new word is heard as, a table with new words, a
chance that any slot fits, the last real state, the order of words.
"""

import contextlib
import random
import re
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import scenes
from helpers.checks import (
    Wrong,
    between,
    call,
    called,
    close,
    describe,
    elsewhere,
    exercise,
    filled,
    gradient,
    recognise,
    same,
    same_gradient,
)


@exercise
def same_words(answer):
    """A dictionary of two questions with the same words and, in some scene, other answers."""
    filled(answer, ("one", "other"))
    asked = {}
    for name in ("one", "other"):
        words = answer[name]
        if isinstance(words, tuple | list) and all(isinstance(w, str) for w in words):
            words = " ".join(words)
        if not isinstance(words, str):
            raise Wrong(f"A question is wanted, words in quotes, not {describe(words)}.")
        asked[name] = words.lower().replace("?", " ").replace(",", " ").split()
    counts = {name: Counter(words) for name, words in asked.items()}
    for name, rest in (
        ("one", counts["one"] - counts["other"]),
        ("other", counts["other"] - counts["one"]),
    ):
        if rest:
            word = next(iter(rest))
            raise Wrong(f"The words differ: {word!r} stands more often in {name!r}.")
    if asked["one"] == asked["other"]:
        raise Wrong("That is one question twice. Put its words in another order.")
    for name, words in asked.items():
        _judge_question(name, words)
    both = 0
    for scene in scenes.sample(1000, seed=random.Random().randrange(1 << 30)):
        found = []
        for words in asked.values():
            with contextlib.suppress(ValueError):  # no single answer in this scene
                found.append(scenes.answer(scene, words))
        if len(found) == 2:
            both += 1
            if found[0] != found[1]:
                return "A mean of rows is the same for both, and the answers are not."
    if not both:
        raise Wrong(
            "No scene of 1,000 has an answer to both: they name too many different things. Name "
            "the same two in both."
        )
    raise Wrong(f"In {both} scenes both have the same answer. Where does order carry meaning?")


def _judge_question(name: str, words: list[str]) -> None:
    """`Wrong` unless the words are a sentence of the grammar, of two things if it is a relation."""
    try:
        asked, one, two = scenes._parse(words)
    except ValueError as error:
        raise Wrong(f"{name!r} is no question here: {error}.") from None
    names = [scenes.COLOURS, scenes.SHAPES, scenes.SIZES, scenes.PLACES]
    colours, shapes, *choosing = ("|".join(group) for group in names)
    noun = rf"(?:(?:{colours}|{'|'.join(choosing)}) )*(?:{shapes}|object)"
    relation = asked in ("above", "below")
    if not relation and asked not in ("color", "shape"):
        noun = f"(?:{colours}|{shapes})"  # how many objects are red, is there a red circle
    kind = "relation" if relation else asked
    sentences = scenes._sentences(kind, "trained") + scenes._sentences(kind, "known")
    for sentence in sentences:
        pattern = sentence.format(asked=asked, one=noun, two=noun)
        if re.fullmatch(pattern, " ".join(words)):
            break
    else:
        raise Wrong(
            f"{name!r} is no sentence of lesson 10's grammar. Those on two things go as in 'is the "
            "circle above the cross', those on one as in 'what color is the circle'."
        )
    if relation and ({*one} <= {*two} or {*two} <= {*one}):
        raise Wrong(
            f"In {name!r} both sides can only name one and the same thing. Name two different "
            "things."
        )


def _words(dtype: torch.dtype, ids: torch.dtype, n: int, m: int):
    """Rows of very different lengths, n new ids, m known ones, none of them in order."""
    V, D = n + m + between(1, 4), between(2, 6)
    order = torch.randperm(V)
    new, known = order[:n], order[n : n + m]
    rows = torch.randn(V, D, dtype=torch.float64)
    lengths = torch.rand(V, 1, dtype=torch.float64) * 20 + 0.05
    if m > 2 and n:  # the nearest is short, and another one that is near is long
        rows[known[0]] = rows[new[0]] + 0.05 * torch.randn(D, dtype=torch.float64)
        rows[known[1]] = rows[new[0]] + 0.5 * torch.randn(D, dtype=torch.float64)
        lengths[known[:2], 0] = torch.tensor([0.003, 60.0], dtype=torch.float64)
        known = known[torch.randperm(m)]
    return (F.normalize(rows) * lengths).to(dtype), new.to(ids), known.to(ids)


def _heard(scores: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    best, places = scores.topk(2, dim=1)
    return known[places[:, 0]], best[:, 0] - best[:, 1]


@exercise
def heard_as(answer):
    """A function (rows, new, known) -> (ids (n,), leads (n,))."""
    cases = [
        (torch.float32, torch.int64, between(3, 6), between(5, 9)),
        (torch.float32, torch.int64, between(2, 5), 2),
        (torch.float64, torch.int64, between(2, 4), between(4, 7)),
        (torch.float32, torch.int32, between(2, 4), between(3, 6)),
        (torch.float32, torch.int64, 1, between(3, 6)),
        (torch.float32, torch.int64, 0, between(3, 6)),
        (torch.float32, torch.int64, between(3, 6), between(5, 9)),
    ]
    for dtype, ids, n, m in cases:
        rows, new, known = _words(dtype, ids, n, m)
        unit = F.normalize(rows)
        cosines = unit[new] @ unit[known].T
        heard, lead = _heard(cosines, known)
        hints = {
            "selected index k out of range": "There may be no more than two known words.",
            "index out of range": "A place in `known` is not an id: known[place] is.",
            "non-empty": "There may be no new word at all: return two empty tensors.",
        }
        value = call(answer, rows, new, known, hints=hints)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise Wrong(f"A pair is wanted, the ids and the leads, not {describe(value)}.")
        mine, leads = value
        if (
            isinstance(mine, Tensor)
            and mine.is_floating_point()
            and not (isinstance(leads, Tensor) and leads.is_floating_point())
        ):
            raise Wrong("The pair is the wrong way round: the ids come first, then the leads.")
        for part, what in ((mine, "ids"), (leads, "leads")):
            if not isinstance(part, Tensor):
                raise Wrong(f"The {what} should be a tensor, not {describe(part)}.")
            if part.shape != (n,):
                raise Wrong(
                    f"For {n} new and {m} known words the {what} have shape {tuple(part.shape)}; "
                    f"{(n,)} is wanted."
                )
        if mine.is_floating_point() or mine.dtype == torch.bool:
            raise Wrong(f"Ids are whole numbers; yours have dtype {mine.dtype}.")
        if leads.dtype != dtype:
            raise Wrong(f"The leads have dtype {leads.dtype}; the rows have {dtype}.")
        if not (torch.equal(mine.to(ids), heard) and close(leads, lead)):
            _judge_units(mine.to(ids), leads, rows, new, known)
        _judge_heard(mine.to(ids), rows, new, known, heard)
        _judge_lead(leads, cosines, lead)
    return "Such a list costs a minute before training, and says what to expect after it."


def _judge_units(mine: Tensor, leads: Tensor, rows: Tensor, new: Tensor, known: Tensor) -> None:
    columns = F.normalize(rows, dim=0)
    apart = F.normalize(rows[new], dim=0) @ F.normalize(rows[known], dim=0).T
    for scores in (columns[new] @ columns[known].T, apart):
        ids, lead = _heard(scores, known)
        if torch.equal(mine, ids) and close(leads, lead):
            raise Wrong("dim=0 gives each column length 1. Each row should have it: dim=1.")
    for eps in (1.0, 0.1, 0.01):
        unit = F.normalize(rows, eps=eps)
        ids, lead = _heard(unit[new] @ unit[known].T, known)
        if torch.equal(mine, ids) and close(leads, lead):
            raise Wrong(f"A very short row has a cosine like any other: your eps, {eps}, is large.")


def _judge_heard(mine: Tensor, rows: Tensor, new: Tensor, known: Tensor, heard: Tensor) -> None:
    if torch.equal(mine, heard):
        return
    unit = F.normalize(rows)
    cosines = unit[new] @ unit[known].T
    everywhere = unit[new] @ unit.T
    every = torch.arange(len(rows), dtype=known.dtype)
    others = everywhere.clone()
    others[torch.arange(len(new)), new.long()] = -2
    mistakes = [
        (
            _heard(rows[new] @ rows[known].T, known)[0],
            "These are by the product of the rows: a long row wins. A cosine takes rows of "
            "length 1.",
        ),
        (
            _heard(-torch.cdist(rows[new], rows[known]), known)[0],
            "These are by distance, which depends on the rows' lengths. The cosine is asked.",
        ),
        (cosines.argmax(1).to(known.dtype), "These are places in `known`. known[place] is the id."),
        (new, "Each new word is nearest to itself. Look among the known words alone."),
        (_heard(everywhere, every)[0], "Look among the known words alone."),
        (_heard(others, every)[0], "Some of these words are not known: look among `known` alone."),
        (_heard(-cosines, known)[0], "These are the words with the smallest cosine."),
        (_heard(cosines.abs(), known)[0], "A cosine of -1 is as far away as can be: no abs()."),
        (known[cosines.topk(2).indices[:, 1]], "These are the second nearest."),
    ]
    recognise(mine, mistakes, torch.equal)
    strange = ~torch.isin(mine, known)
    if strange.any():
        raise Wrong("Some of your ids are not among the known words.")
    raise Wrong(
        "These are not the known words with the largest cosine, in the order of `new`. (A very "
        "short row has a cosine, too.)"
    )


def _judge_lead(leads: Tensor, cosines: Tensor, lead: Tensor) -> None:
    if close(leads, lead):
        return
    best = cosines.topk(2, dim=1).values
    mistakes = [
        (-lead, "The lead is the largest less the second, so never below zero."),
        (best[:, 0], "That is the largest cosine itself. By how much is it larger?"),
        (best[:, 1], "That is the second cosine. By how much is the largest larger?"),
        (best[:, 0] - cosines.amin(1), "That is the lead over the last. Over the second is asked."),
        (best[:, 0] - cosines.mean(1), "That is the lead over the mean, not over the second."),
        (best[:, 0] / best[:, 1], "That is a ratio. A difference is asked."),
    ]
    recognise(leads, mistakes)
    raise Wrong(
        "The words are right; the leads are not the largest cosine less the second largest."
    )


@exercise
def with_new_words(answer):
    """A function (table, like) -> an nn.Embedding with a row more for each of `like`."""
    cases = [
        (torch.float32, torch.int64, None, False, between(3, 5)),
        (torch.float32, torch.int64, 0, True, between(3, 5)),
        (torch.float64, torch.int64, 1, False, between(3, 5)),
        (torch.float32, torch.int32, None, True, 1),
        (torch.bfloat16, torch.int64, None, False, between(3, 5)),
        (torch.float32, torch.int64, None, False, 0),
        (torch.float32, torch.int64, -1, False, between(3, 5)),
    ]
    for dtype, ids, pad, frozen, n in cases:
        V, D = between(5, 9), between(1, 6)
        table = nn.Embedding(V, D, padding_idx=pad, dtype=dtype)
        with torch.no_grad():
            table.weight.normal_()  # the padding row, too, may hold anything
        table.weight.requires_grad_(not frozen)
        like = torch.randint(V, (n,)).to(ids)
        if n > 1:
            like[0] = V - 1
            like[1] = like[0]  # one word may lend its row twice
            like[2] = 0  # or the reverse might be the same
        _judge_new_words(answer, table, like)
    return "Old ids keep their rows, and the new words begin as words that the model knows."


_SETTINGS = ("padding_idx", "max_norm", "scale_grad_by_freq", "sparse", "training")


def _judge_new_words(answer: object, table: nn.Embedding, like: Tensor) -> None:
    weight, before, frozen = table.weight, table.weight.detach().clone(), None
    frozen = not weight.requires_grad
    (V, D), n, pad = before.shape, len(like), table.padding_idx
    hints = {
        "a leaf Variable": "Writing is no part of the model: do it under torch.no_grad().",
        "cannot assign": "A module's weight is an nn.Parameter: wrap the tensor in one.",
        "Sizes of tensors must match": "Rows go below rows: torch.cat([...], dim=0).",
        "must be a Tensor": "`like` may hold int32 ids, and none at all.",
    }
    kept, settings = like.clone(), {name: getattr(table, name) for name in _SETTINGS}
    value = call(answer, table, like, copy=False, hints=hints)
    if not torch.equal(like, kept):
        raise Wrong("Your function wrote into `like`.")
    if table.weight is not weight or not torch.equal(weight, before):
        raise Wrong("The old table has changed. It stays as it is; make a new one.")
    if weight.requires_grad == frozen:
        raise Wrong("The old table's requires_grad has changed. Leave it as it is.")
    if weight.grad is not None or settings != {n: getattr(table, n) for n in _SETTINGS}:
        raise Wrong("The old table has another setting now, or a gradient. It stays as it is.")
    if value is table:
        raise Wrong("That is the old table itself. A new one is wanted.")
    if not isinstance(value, nn.Embedding):
        raise Wrong(f"An nn.Embedding is wanted, not {describe(value)}.")
    now = value.weight
    if now.shape != (V + n, D):
        raise Wrong(f"The new table is of shape {tuple(now.shape)}; {(V + n, D)} is wanted.")
    if now.dtype != before.dtype:
        raise Wrong(f"The new table has dtype {now.dtype}; the old one has {before.dtype}.")
    if not isinstance(now, nn.Parameter) or not now.is_leaf:
        raise Wrong("The new weight is the result of a computation, and no parameter of its own.")
    _judge_new_rows(now.detach(), before, like, pad)
    if now.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr():
        raise Wrong("The two tables share memory: a step of one would move the other. Copy.")
    if now.requires_grad == frozen:
        raise Wrong(
            "The new table is frozen, and the old one learns. from_pretrained freezes unasked; its "
            "freeze= should say what the old one does."
            if not frozen
            else "The new table learns, and the old one is frozen. Freeze where the old one does: "
            "ask table.weight.requires_grad."
        )
    if value.padding_idx != pad:
        raise Wrong(f"The new table's padding_idx is {value.padding_idx}; it was {pad}.")
    for name in ("max_norm", "scale_grad_by_freq", "sparse"):
        if getattr(value, name) != settings[name]:
            raise Wrong(
                f"The new table has {name}={getattr(value, name)}, and the old one has not."
            )
    if value.num_embeddings != V + n:
        raise Wrong(f"num_embeddings says {value.num_embeddings}, and there are {V + n} rows.")


def _judge_new_rows(now: Tensor, before: Tensor, like: Tensor, pad: int | None) -> None:
    V, n = len(before), len(like)
    wanted = torch.cat([before, before[like]])
    if torch.equal(now, wanted):
        return
    if n and torch.equal(now, torch.cat([before[like], before])):
        raise Wrong("The new rows stand above the old ones, so every old id means another word.")
    off = (now[:V] != before).any(dim=1).nonzero().flatten().tolist()
    if off and off == [pad]:
        raise Wrong(
            "The row of padding_idx has become zeros: nn.Embedding writes them where it draws its "
            "own weight. The old row held other numbers."
        )
    if off:
        raise Wrong(f"Old rows must stay where they were: row {off[0]} is another now.")
    if n > 1 and torch.equal(now[V:], before[like].flip(0)):
        raise Wrong("The new rows are in reverse: row V + i is that of like[i].")
    if torch.equal(now[V:], before[like].mean(0).expand(n, -1)):
        raise Wrong("Each new word has its own model: row V + i is that of like[i], no mean.")
    if not now[V:].any():
        raise Wrong("The new rows are zeros. Row V + i should be that of like[i].")
    raise Wrong("The new rows are not those of `like`, place by place.")


@exercise
def last_state(answer):
    """A function (gru, rows, lengths) -> (B, H), the state after each last real word."""
    a, b = between(2, 4), between(3, 6)
    cases = [
        (5, between(8, 11), a, b, torch.float32, torch.int64),
        (b, b, 3, 6, torch.float32, torch.int64),
        (1, between(3, 6), 4, a, torch.float32, torch.int64),
        (6, 6, 5, 6, torch.float64, torch.int64),
        (a + 2, 4, 1, 1, torch.float32, torch.int32),
        (3, 1, 2, 3, torch.float32, torch.int64),  # one word each
    ]
    for B, L, D, H, dtype, whole in cases:
        gru = nn.GRU(D, H, batch_first=True, dtype=dtype)
        lengths = torch.randint(2 if L > 3 else 1, L + 1, (B,))
        if B > 1 and L > 1:
            lengths[:2] = torch.tensor([max(L - 2, 1), L])  # not sorted, one as long as the batch
        rows = torch.randn(B, L, D, dtype=dtype)
        if B != L:  # else padding holds anything, so that nobody reads the lengths off zero rows
            rows[torch.arange(L) >= lengths[:, None]] = 0
        _judge_last_state(answer, gru, rows, lengths.to(whole))
    return "Padding is for the batch, not for the reader."


def _judge_last_state(answer: object, gru: nn.GRU, rows: Tensor, lengths: Tensor) -> None:
    B, L, H = *rows.shape[:2], gru.hidden_size
    given = rows.clone().requires_grad_()
    states, end = gru(given)
    at = torch.arange(B)
    last = lengths.long() - 1
    truth = states[at, last]
    hints = {
        "enforce_sorted": "The lengths come in any order: enforce_sorted=False.",
        "out of bounds": f"The last of n words is number n - 1: there is none at {L}.",
        "expected 3": "Leave rows as (B, L, D): the GRU is batch_first.",
        "mat1 and mat2": "Is a dimension out of place? rows is (B, L, D).",
    }
    weights = [p.detach().clone() for p in gru.parameters()]
    value, (_, mine, _) = called(answer, gru, given, lengths, hints=hints)
    if any(not torch.equal(p, w) for p, w in zip(gru.parameters(), weights, strict=True)):
        raise Wrong("Your function wrote into the GRU's weights.")
    if not gru.batch_first:
        raise Wrong("Your function left the GRU with batch_first=False.")
    if not all(p.requires_grad for p in gru.parameters()):
        raise Wrong("Your function froze the GRU's weights and left them so.")
    if isinstance(value, nn.utils.rnn.PackedSequence):
        raise Wrong("A packed sequence is not a state: take the second thing the GRU returns.")
    if isinstance(value, Tensor) and value.shape == (1, B, H) != truth.shape:
        raise Wrong(f"(1, {B}, {H}) has the layer first. Take the only layer: (B, H).")
    if same(value, truth, "The state"):
        same_gradient(value, truth, mine, given)
        weight = gru.weight_ih_l0
        (found,) = torch.autograd.grad(value.sum(), weight, allow_unused=True, retain_graph=True)
        if found is None:
            raise Wrong("The GRU that was given gets no gradient: run it, and no copy of it.")
        if not close(found, gradient(truth.sum(), weight, torch.ones((), dtype=truth.dtype))):
            raise Wrong("The values are right; the gradient that the GRU gets is another.")
        return
    real = torch.arange(L) < lengths[:, None]
    early, late = states[at, (last - 1).clamp(min=0)], states[at, (last + 1).clamp(max=L - 1)]
    wrapped = states[at, last - 1]
    mean = (states * real[..., None]).sum(1) / lengths[:, None]
    mistakes = [
        (end[0], "These are the states at the end of the padding."),
        (states[:, 0], "These are the states after the first word."),
        (early, "One word too early: the last of n words is number n - 1."),
        (wrapped, "One word too early: the last of n words is number n - 1."),
        (late, "One word too late, where there is padding: the last is number n - 1."),
        (mean, "That is the mean of the states. The last real one is asked."),
        (
            truth[lengths.argsort(descending=True)],
            "These are in the order of the lengths. Put them back.",
        ),
        (states.mean(1), "That is a mean over the padding too. The last real state is asked."),
        (
            states[:, lengths.min() - 1],
            "Every question has a length of its own: yours takes one for all.",
        ),
    ]
    recognise(value, mistakes)
    raise Wrong("These are not the states after each question's last real word, in order.")


@exercise
def at_least_one(answer):
    """A function (scores) -> (B, Q): the chance that at least one of independent slots fits."""
    q, s = between(2, 3), between(4, 5)
    cases = [
        (6, q, s, torch.float32, 1.0),
        (between(2, 5), 1, 6, torch.float32, 1.0),
        (3, 3, 3, torch.float32, 1.0),
        (1, q, 1, torch.float64, 1.0),
        (2, q, s, torch.float32, 400.0),  # exp overflows
        (0, q, s, torch.float32, 1.0),
        (2, q, s, torch.bfloat16, 1.0),
    ]
    for B, Q, S, dtype, scale in cases:
        scores = scale * (torch.randn(B, Q, S) - 1.2)
        if scale > 100:
            scores[0, 0, :2] = torch.tensor([400.0, -400.0])
        _judge_at_least_one(answer, scores.to(dtype))
    elsewhere(answer, torch.randn(2, q, s))
    return "Sums of chances count; products of their opposites ask whether there is any."


def _judge_at_least_one(answer: object, scores: Tensor) -> None:
    B, Q, S = scores.shape
    given = scores.clone().requires_grad_()
    truth = 1 - (-given).sigmoid().prod(-1)
    hints = {"Dimension out of range": "The slots are the last axis."}
    value, (mine,) = called(answer, given, hints=hints)
    if isinstance(value, Tensor) and value.shape == (B, Q, S) and B and S not in (1, Q):
        raise Wrong("That is one number a slot. One number for each query is asked: (B, Q).")
    if not isinstance(value, Tensor) or value.shape != (B, Q):
        raise Wrong(f"Scores of shape {(B, Q, S)} gave {describe(value)}; {(B, Q)} is wanted.")
    if value.dtype == torch.bool:
        raise Wrong("That is yes or no. A chance is asked: between 0 and 1.")
    if not B:
        same(value, truth, "The chance")
        return
    chances, plain = scores.sigmoid(), scores.detach()
    mistakes = [
        (chances.sum(-1), "That is the expected number of slots that fit; it can be above 1."),
        (torch.ones(B, Q), "That is always 1, as a softmax adds up to 1 whatever fits."),
        (chances.sum(-1).clamp(max=1), "Chances of independent events do not add up, cut or not."),
        (chances.amax(-1), "That is the chance of the likeliest. The others may fit, too."),
        (chances.mean(-1), "That is the mean chance."),
        (chances.prod(-1), "That is the chance that all of them fit."),
        (1 - chances.prod(-1), "That is the chance that not all of them fit."),
        ((1 - chances).prod(-1), "That is the chance that none fits: the rest of it is asked."),
        (plain.sum(-1).sigmoid(), "Yours takes the chance of the sum of the scores."),
        (plain.amax(-1), "That is the largest score. A chance is asked: between 0 and 1."),
        (plain.logsumexp(-1).sigmoid(), "That is another rule: all slots share one logit there."),
        (1 - (1 - plain).prod(-1), "A score is a logit. Turn each into a chance first."),
        ((plain > 0).any(-1), "That is yes or no. Small chances add to the chance, too."),
    ]

    def near(one: Tensor, other: Tensor) -> bool:
        return one.shape == other.shape and close(one.detach().double(), other.detach().double())

    if not value.isfinite().all():
        raise Wrong("Scores of some hundred give nan: exp overflows. scores.sigmoid() does not.")
    if scores.abs().max() < 30 and scores.dtype != torch.bfloat16 and S > 1:
        if not near(value, truth):
            recognise(value, mistakes, near)
            if Q == S and near(value, 1 - (1 - chances).prod(1)):
                raise Wrong("Take the product over the slots, the last axis, not over the queries.")
    if not same(value, truth, "The chance"):
        raise Wrong("This is not 1 less the chance that none fits. When does no slot fit?")
    if value.requires_grad and not gradient(value, mine, torch.ones_like(value)).isfinite().all():
        raise Wrong(
            "The values are right, but at scores of some hundred the gradient is nan: a number on "
            "the way is infinite. (-scores).sigmoid() keeps all of them between 0 and 1."
        )
    same_gradient(value, truth, mine, given)
