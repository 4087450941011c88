"""Checks of lesson 06: the pairs of a window, the loss that is sampled, and who learns from it."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import (
    Largest,
    Wrong,
    by_hand,
    call,
    close,
    describe,
    exercise,
    filled,
    number,
    same,
)


def _paired(ids, sentence, offsets, border: bool = True, equal: bool = True) -> list:
    """The ids at the places i and i + d, for all d of `offsets`, as a sorted list of pairs.

    With `border` both stand in one sentence; without `equal` a word is not paired with itself.
    """
    n = len(ids)
    found = [(i, i + d) for i in range(n) for d in offsets if 0 <= i + d < n]
    return sorted(
        (int(ids[i]), int(ids[j]))
        for i, j in found
        if (not border or sentence[i] == sentence[j]) and (equal or ids[i] != ids[j])
    )


@exercise
def pairs(answer):
    """A function (ids, sentence, window) -> (2, P): each centre with each of its contexts."""
    lengths = torch.randint(1, 6, (5,))
    several = torch.repeat_interleave(torch.arange(2, 7), lengths)  # the first number is not 0
    texts = [
        (torch.tensor([3, 1, 4, 1, 5, 9]), torch.zeros(6, dtype=torch.long), 2),
        (torch.randint(100, (7,)), torch.tensor([0, 0, 0, 0, 1, 1, 1]), 2),
        (torch.randint(1000, (len(several),)), several, 3),
        (torch.randint(5, (30,)), torch.arange(30) // 10, 4),
        (torch.tensor([8, 2, 6]), torch.tensor([0, 0, 1]), 5),  # a window longer than the text
    ]
    for ids, sentence, window in texts:
        found = call(answer, ids, sentence, window)
        if not isinstance(found, torch.Tensor):
            raise Wrong(f"A tensor of shape (2, P) is wanted, not {describe(found)}.")
        if found.ndim != 2 or found.shape[0] != 2:
            raise Wrong(f"One column for each pair, (2, P); yours is {tuple(found.shape)}.")
        if found.dtype != torch.int64:
            raise Wrong(f"Ids are int64; yours are {found.dtype}.")

        mine = sorted(map(tuple, found.T.tolist()))
        after, before = range(1, window + 1), range(-window, 0)
        near = [*before, *after]
        truth = _paired(ids, sentence, near)
        if mine == truth:
            continue
        if mine == _paired(ids, sentence, near, border=False):
            raise Wrong("Pairs cross from one sentence into the next. Compare their numbers.")
        if mine == _paired(ids, sentence, [*near, 0]):
            raise Wrong("The centre is paired with itself, at its own place.")
        if mine == _paired(ids, sentence, near[1:-1]):
            raise Wrong("The window ends too early: `window` places away is still inside.")
        if mine == _paired(ids, sentence, [*near, window + 1, -window - 1]):
            raise Wrong("The window reaches one place too far.")
        if mine == _paired(ids, sentence, [*after[:-1], *before]):
            raise Wrong("The last place on the right is missing: range(i, j) stops before j.")
        if mine in (_paired(ids, sentence, after), _paired(ids, sentence, before)):
            raise Wrong("One side only. Each of two neighbours is a context of the other.")
        if mine == _paired(ids, sentence, near, equal=False):
            raise Wrong("A word near the same word is a pair too: compare places, not ids.")
        if mine == sorted(set(truth)):
            raise Wrong("Each pair stands there once. It counts as often as the text has it.")
        if mine == _paired(range(len(ids)), sentence, near):
            raise Wrong("Those are places in the text. The ids that stand there are wanted.")
        raise Wrong(
            f"For ids {ids.tolist()} in sentences {sentence.tolist()} and a window of {window} "
            f"there are {len(truth)} pairs, the first {truth[:1]}; yours are {len(mine)}."
        )
    return "Every neighbour on both sides, and no word of another sentence."


def _loss(v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The loss of negative sampling, with autograd: the first row of each (1 + K, D) is true."""
    scores = torch.einsum("bd,bkd->bk", v, u)
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


@exercise
def gradients(answer):
    """A function (v, u) -> the gradients of the sampled loss for the centres and the rows met."""
    shapes = [(4, 5, 3, torch.float32), (1, 1, 6, torch.float64), (6, 4, 6, torch.float64)]
    for B, K, D, dtype in shapes:
        v = torch.randn(B, D, dtype=dtype, requires_grad=True)
        u = torch.randn(B, 1 + K, D, dtype=dtype, requires_grad=True)
        truth = torch.autograd.grad(_loss(v, u), (v, u))
        found = by_hand(answer, v.detach(), u.detach())
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise Wrong(f"A pair is wanted, the gradients of v and of u, not {describe(found)}.")
        names = ("The gradient of v", "The gradient of u")
        right = [same(f, t, n) for f, t, n in zip(found, truth, names, strict=True)]
        if all(right):
            continue
        v, u = v.detach(), u.detach()
        labels = torch.zeros(B, 1 + K, dtype=dtype)
        labels[:, 0] = 1
        scores = torch.einsum("bd,bkd->bk", v, u)
        wrong = torch.sigmoid(scores) - labels

        def from_error(wrong, v=v, u=u):
            return torch.einsum("bk,bkd->bd", wrong, u), torch.einsum("bk,bd->bkd", wrong, v)

        known = [
            (torch.sigmoid(scores), "The label is missing: the error is σ(score) − label."),
            (-wrong, "The sign is turned. A gradient points uphill: σ − label."),
            (wrong / B, "That is the gradient of the mean. The loss is a sum."),
            (
                torch.sigmoid(scores) + labels - 1,
                "True and drawn are exchanged: which comes first?",
            ),
            (scores - labels, "σ is missing: the error is σ(score) − label."),
            (
                torch.where(labels == 1, wrong, -wrong),
                "The drawn words' sign is turned: −log σ(−s) grows with s, by σ(s).",
            ),
            (
                torch.softmax(scores, dim=1) - labels,
                "That is a softmax over the rows. Each is a question of its own: sigmoid.",
            ),
            (
                wrong * torch.sigmoid(scores) * (1 - torch.sigmoid(scores)),
                "σ' is too much: it cancels against the logarithm. σ − label is all there is.",
            ),
        ]
        for other, hint in known:
            if any(close(f, t) for f, t in zip(found, from_error(other), strict=True)):
                raise Wrong(hint)
        swapped = torch.einsum("bk,bd->bd", wrong, v), torch.einsum("bk,bkd->bkd", wrong, u)
        if any(close(f, t) for f, t in zip(found, swapped, strict=True)):
            raise Wrong("Each row moves by the other's row, not by its own.")
        means = wrong.unsqueeze(-1) * u
        if close(found[0], means.mean(dim=1)):
            raise Wrong("The centre's gradient is a sum over the rows it met, not their mean.")
        if close(found[0], means[:, 0]):
            raise Wrong("The drawn rows pull at the centre as well. Sum over all it met.")
        part = "u" if right[0] else "v"
        raise Wrong(f"The gradient of {part} is not it. It is σ − label times the other's row.")
    return "The error of each answer, times the row it met. That is all that word2vec computes."


CONTEXTS, CENTRE, DRAWN = [4, 7, 7, 2], 1, [5, 0, 5]


def _who_learns() -> dict[str, set[int]]:
    """The answers of `rows`, asked of autograd."""
    contexts, drawn = torch.tensor(CONTEXTS), torch.tensor(DRAWN)
    truth = {}
    for name in ("CBOW, softmax", "CBOW, sampling", "skip-gram, sampling"):
        first, second = nn.Embedding(8, 6), nn.Embedding(8, 6)
        if name.startswith("CBOW"):
            v, targets = first(contexts).mean(dim=0, keepdim=True), torch.tensor([CENTRE])
        else:
            v, targets = first(torch.tensor([CENTRE] * 4)), contexts
        if name.endswith("softmax"):
            loss = F.cross_entropy(v @ second.weight.T, targets)
        else:
            asked = torch.cat([targets.unsqueeze(1), drawn.expand(len(targets), 3)], dim=1)
            loss = _loss(v, second(asked))
        loss.backward()
        for table, which in ((first, "first"), (second, "second")):
            learned = table.weight.grad.any(dim=1).nonzero().flatten().tolist()
            truth[f"{name}: {which} table"] = set(learned)
    del truth["CBOW, sampling: first table"]  # the same as with a softmax
    return truth


@exercise
def rows(answer):
    """A dictionary from objective and table to the set of rows that get a gradient."""
    truth = _who_learns()
    filled(answer, truth)
    for name, right in truth.items():
        said = answer[name]
        try:
            said = {int(number(i)) for i in said}
        except (Wrong, TypeError, ValueError):
            raise Wrong(f"{name}: a set of rows is wanted, not {describe(said)}.") from None
        if said == right:
            continue
        if not said <= set(range(8)):
            raise Wrong(f"{name}: the eight words are the rows 0 to 7.")
        contexts, centre, drawn = set(CONTEXTS), {CENTRE}, set(DRAWN)
        if "softmax: second" in name:
            raise Wrong(f"{name}: which words does a softmax give a score?")
        if "first" in name:
            if said & drawn:
                raise Wrong(f"{name}: drawn words are looked up in the second table.")
            if said == (centre if "CBOW" in name else contexts):
                raise Wrong(f"{name}: that is what is guessed. What goes in?")
            raise Wrong(f"{name}: the rows that were looked up there, and no others.")
        if said == right - drawn:
            raise Wrong(f"{name}: the drawn words are scored too, and learn that they are wrong.")
        if said == drawn:
            raise Wrong(f"{name}: the true word is asked for as well.")
        if said == (contexts if "CBOW" in name else centre) | drawn:
            raise Wrong(f"{name}: that is what goes in. What is guessed?")
        if said - right == (contexts if "CBOW" in name else centre) - right and said > right:
            raise Wrong(f"{name}: what goes in is looked up in the other table.")
        raise Wrong(f"{name}: the true words and the drawn ones, in the table that is scored.")
    return "In go rows of one table, scored are rows of the other."


@exercise
def keep(answer):
    """A function (counts, t) -> (V,): the probability that an occurrence of each word is kept."""
    cases = [
        (torch.tensor([50_000, 9000, 800, 70, 6]), 1e-3),
        (torch.randint(5, 100_000, (40,)), 1e-4),
        (torch.tensor([600, 300, 100]), 0.5),
    ]
    for counts, t in cases:
        found = call(answer, counts, t)
        if not isinstance(found, torch.Tensor):
            raise Wrong(f"A tensor is wanted, not {describe(found)}.")
        if found.shape != counts.shape:
            raise Wrong(
                f"One probability for each word: {tuple(counts.shape)}, not {tuple(found.shape)}."
            )
        if not found.is_floating_point():
            raise Wrong(f"Probabilities are no whole numbers; yours have dtype {found.dtype}.")
        found = found.double()

        def formula(ratio):
            return (ratio.sqrt() + ratio).double()

        ratio = t / (counts.double() / counts.sum())
        truth = formula(ratio).clamp(max=1)

        def near(other, found=found):
            return torch.allclose(found, other, rtol=1e-4, atol=1e-7)

        if near(truth):
            continue
        if near(1 - truth):
            raise Wrong("That is the probability of being dropped.")
        if near(formula(ratio)):
            raise Wrong("A probability above 1. Rare words are always kept: clamp.")
        if near(formula(t / counts).clamp(max=1)):
            raise Wrong("Those are counts. f is the word's share of all the words.")
        if near(formula(t * counts.max() / counts).clamp(max=1)):
            raise Wrong("f is the share of all words, not of the most frequent one.")
        if near(formula(1 / ratio).clamp(max=1)):
            raise Wrong("Upside down: the more frequent, the less is kept. t / f.")
        if near(ratio.sqrt().clamp(max=1)) or near((1 - ratio.sqrt()).clamp(min=0)):
            raise Wrong("That is the paper's formula. The program has a second term, t / f.")
        if near(ratio.clamp(max=1)):
            raise Wrong("The root's term is missing.")
        if near(truth * counts):
            raise Wrong("That is how many are kept. The probability for one of them is wanted.")
        raise Wrong("√(t / f) + t / f, at most 1, with f = count / sum of all counts.")
    return "The most frequent words are thinned, the rest stay whole."


@exercise
def shared(answer):
    """A function (v, u, n, K) -> the gradients of v, u and n, the drawn rows n being shared."""
    for B, M, D, K in [(6, 4, 3, 2), (5, 5, 5, 5), (40, 24, 16, 5)]:
        v, u, n = (torch.randn(size, D, dtype=torch.float64) for size in (B, B, M))
        for part in (v, u, n):
            part.requires_grad_()
        true, drawn = F.logsigmoid((v * u).sum(dim=1)), F.logsigmoid(-(v @ n.T))
        truth = torch.autograd.grad(-true.sum() - K / M * drawn.sum(), (v, u, n))
        given = [part.detach() for part in (v, u, n)]
        with Largest() as largest:
            found = by_hand(answer, *given, K)
        if not (isinstance(found, tuple | list) and len(found) == 3):
            raise Wrong(f"Three gradients are wanted, of v, u and n, not {describe(found)}.")
        names = ("v", "u", "n")
        right = [
            same(f, t, f"The gradient of {name}")
            for f, t, name in zip(found, truth, names, strict=True)
        ]
        if all(right):
            if B > 6 and largest.shape.numel() >= B * M * D:
                raise Wrong(
                    f"Right numbers, by way of a tensor of shape {tuple(largest.shape)}. "
                    "A matrix product sums while it multiplies."
                )
            continue
        v, u, n = given
        error = torch.sigmoid((v * u).sum(dim=1, keepdim=True)) - 1
        noise = torch.sigmoid(v @ n.T)
        if close(found[0], error * u + noise @ n) or close(found[2], noise.T @ v):
            raise Wrong("Every pair is charged for all M drawn words. Weigh each by K / M.")
        if close(found[0], noise @ n * K / M):
            raise Wrong("v: the pull of its true context is missing.")
        if close(found[0], error * u):
            raise Wrong("v: the push of the drawn rows is missing.")
        if close(found[1], (error + 1) * v):
            raise Wrong("u: the true pair's error is σ − 1.")
        if any(close(f, -t) for f, t in zip(found, truth, strict=True)):
            raise Wrong("The sign is turned: σ − label, times the other's row.")
        if close(found[2], (noise - 1).T @ v * K / M):
            raise Wrong("n: a drawn word's label is 0.")
        if close(found[2], noise.T @ v * K / M / B):
            raise Wrong("n: summed over the pairs, not averaged.")
        name = names[right.index(False)]
        raise Wrong(f"The gradient of {name} is not it. Compare with autograd on the loss.")
    return "Two matrix products in place of B · M dot products, and the same numbers."
