"""Checks of lesson 06 and its side lessons: who learns from a window, and by which gradient; how
much of a text is thinned; negatives that a batch of pairs shares.
"""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import (
    COARSE,
    Largest,
    Wrong,
    between,
    by_hand,
    call,
    close,
    describe,
    exercise,
    filled,
    number,
    recognise,
    same,
)


def _loss(v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The loss of negative sampling, with autograd: the first row of each (1 + K, D) is true."""
    scores = torch.einsum("bd,bkd->bk", v, u)
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


def _alike(value: object, truth: torch.Tensor, what: str, size: float = 1) -> bool:
    """As `same`, with room for rounding where sums cancel: of coarse dtypes, of rows of `size`."""
    right = same(value, truth, what)
    if truth.dtype in COARSE or size > 1:
        return bool((value.double() - truth.double()).abs().le(0.1).all())
    return right


def _overflows(found: object) -> None:
    """`Wrong` where a gradient is not finite."""
    if not all(bool(part.isfinite().all()) for part in found):
        raise Wrong(
            "For scores of some hundreds a gradient comes out as nan or inf: an exponential "
            "overflows. torch.sigmoid does not."
        )


@exercise
def gradients(answer):
    """A function (v, u) -> the gradients of the sampled loss for the centres and the rows met."""
    B, K, D = between(2, 6), between(2, 5), between(3, 6)
    cases = [
        (B, K, D, torch.float32, 1),
        (B, K, B, torch.float64, 1),
        (D, D - 1, D, torch.float64, 1),
        (between(2, 6), between(2, 6), between(2, 6), torch.float64, 1),
        (1, 5, 7, torch.float32, 1),
        (4, 3, 1, torch.float64, 1),
        (5, 1, 3, torch.float64, 1),
        (3, 0, 4, torch.float64, 1),  # nothing drawn
        (0, 5, 4, torch.float32, 1),  # an empty batch
        (3, 2, 4, torch.bfloat16, 0.5),
        (6, 4, 6, torch.float64, 30),  # scores of some thousands
    ]
    for B, K, D, dtype, size in cases:
        v = (size * torch.randn(B, D)).to(dtype).requires_grad_()
        u = (size * torch.randn(B, 1 + K, D)).to(dtype).requires_grad_()
        truth = torch.autograd.grad(_loss(v, u), (v, u))
        found = by_hand(answer, v.detach(), u.detach())
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise Wrong(f"A pair is wanted, the gradients of v and of u, not {describe(found)}.")
        names = ("The gradient of v", "The gradient of u")
        right = [_alike(f, t, n, size) for f, t, n in zip(found, truth, names, strict=True)]
        if all(right):
            continue
        if size > 1:
            _overflows(found)
        if dtype in COARSE:
            raise Wrong(f"In {dtype} it goes wrong, and in float32 it is right.")
        _recognise_gradients(found, right, v.detach(), u.detach())
    return "The error of each answer, times the row it met. That is all that word2vec computes."


def _recognise_gradients(found, right, v: torch.Tensor, u: torch.Tensor) -> None:
    """`Wrong` with the hint that fits these gradients of v and u."""
    labels = torch.zeros(u.shape[:2], dtype=u.dtype)
    labels[:, 0] = 1
    scores = torch.einsum("bd,bkd->bk", v, u)
    sigma = torch.sigmoid(scores)
    wrong = sigma - labels

    def both(error):
        return torch.einsum("bk,bkd->bd", error, u), torch.einsum("bk,bd->bkd", error, v)

    losses = torch.where(labels == 1, -F.logsigmoid(scores), -F.logsigmoid(-scores))
    known = [
        (losses, "That is the loss times the other's row. Its derivative by the score is wanted."),
        (sigma - 1, "σ − 1 is the true pair's error. The label of a drawn word is 0."),
        (
            torch.where(labels == 1, -wrong, wrong),
            "The true pair's sign is turned: the derivative of −log σ(s) is σ(s) − 1, below zero.",
        ),
        (
            torch.where(labels == 1, wrong, 1 - sigma),
            "A drawn word's error is not σ(−s): the derivative of −log σ(−s) is σ(s).",
        ),
        (
            torch.where(labels == 1, wrong, sigma - 1),
            "A drawn word's label is 0: its error is σ(s).",
        ),
        (sigma, "The label is missing: the error is σ(score) − label."),
        (-wrong, "The sign is turned. A gradient points uphill: σ − label."),
        (wrong / len(v), "That is the gradient of the mean over the batch. The loss is a sum."),
        (wrong / labels.numel(), "That is the gradient of the mean. The loss is a sum."),
        (sigma + labels - 1, "True and drawn are exchanged: which comes first?"),
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
            wrong * sigma * (1 - sigma),
            "σ' is too much: it cancels against the logarithm. σ − label is all there is.",
        ),
    ]
    # v first: for K = 0 and B = 1 the gradients of u can be right by luck.
    for error, hint in known:
        if all(close(f, t) for f, t in zip(found, both(error), strict=True)):
            raise Wrong(hint)
    swapped = torch.einsum("bk,bd->bd", wrong, v), torch.einsum("bk,bkd->bkd", wrong, u)
    if any(close(f, t) for f, t in zip(found, swapped, strict=True)):
        raise Wrong("Each row moves by the other's row, not by its own.")
    means = wrong.unsqueeze(-1) * u
    if close(found[0], means.mean(dim=1)):
        raise Wrong("The centre's gradient is a sum over the rows it met, not their mean.")
    if close(found[0], means[:, 0]):
        raise Wrong("The drawn rows pull at the centre as well. Sum over all it met.")
    if u.shape[1] > 1 and close(found[0], means[:, 1:].sum(dim=1)):
        raise Wrong("The true context pulls at the centre as well. Sum over all it met.")
    names = ("v", "u")
    for found_part, part, name, ok in zip(found, range(2), names, right, strict=True):
        for error, hint in known:
            if not ok and close(found_part, both(error)[part]):
                raise Wrong(f"{name}: {hint[0].lower()}{hint[1:]}" if hint[0] != "σ" else hint)
    part = "u" if right[0] else "v"
    raise Wrong(
        f"The gradient of {part} is not it. Compare with autograd for one pair: B = 1, K = 1."
    )


CONTEXTS, CENTRE, DRAWN = [4, 7, 7, 2], 1, [5, 0, 5]


def _who_learns() -> dict[str, set[int]]:
    """The answers of `rows`, asked of autograd."""
    contexts, drawn = torch.tensor(CONTEXTS), torch.tensor(DRAWN)
    truth = {}
    for name in ("CBOW, softmax", "skip-gram, sampling"):
        first, second = nn.Embedding(8, 6), nn.Embedding(8, 6)
        if name.startswith("CBOW"):
            v = first(contexts).mean(dim=0, keepdim=True)
            loss = F.cross_entropy(v @ second.weight.T, torch.tensor([CENTRE]))
        else:
            v = first(torch.tensor([CENTRE] * 4))
            asked = torch.cat([contexts.unsqueeze(1), drawn.expand(len(contexts), 3)], dim=1)
            loss = _loss(v, second(asked))
        loss.backward()
        for table, which in ((first, "first"), (second, "second")):
            learned = table.weight.grad.any(dim=1).nonzero().flatten().tolist()
            truth[f"{name}: {which} table"] = set(learned)
    return truth


@exercise
def rows(answer):
    """A dictionary from objective and table to the set of rows that get a gradient."""
    truth = _who_learns()
    filled(answer, truth)
    for name, right in truth.items():
        said = answer[name]
        try:
            said = {number(i) for i in said}
        except (Wrong, TypeError, ValueError):
            raise Wrong(f"{name}: a set of rows is wanted, not {describe(said)}.") from None
        if said == right:
            continue
        if not said:
            raise Wrong(f"{name}: no row at all? Something is looked up in it, and scored.")
        if not said <= set(range(8)):
            raise Wrong(f"{name}: the eight words are the rows 0 to 7.")
        contexts, centre, drawn = set(CONTEXTS), {CENTRE}, set(DRAWN)
        if "softmax: second" in name:
            if said == right - centre:
                raise Wrong(
                    f"{name}: the true word's probability is below 1, so its row learns too."
                )
            raise Wrong(f"{name}: which words does a softmax give a score?")
        if "first" in name:
            if "sampling" in name and said & drawn:
                raise Wrong(f"{name}: drawn words are looked up in the second table.")
            if said == (centre if "CBOW" in name else contexts):
                raise Wrong(f"{name}: that is what is guessed. What goes in?")
            raise Wrong(f"{name}: the rows that were looked up there, and no others.")
        if said == contexts:
            raise Wrong(f"{name}: the drawn words are scored too, and learn that they are wrong.")
        if said == drawn:
            raise Wrong(f"{name}: the true word is asked for as well.")
        if said == centre | drawn:
            raise Wrong(f"{name}: that is what goes in. What is guessed?")
        if said == right | centre:
            raise Wrong(f"{name}: what goes in is looked up in the other table.")
        raise Wrong(f"{name}: the true words and the drawn ones, in the table that is scored.")
    return "One table learns in the rows that went in, the other in those that were scored."


def _share_left(counts: torch.Tensor, t: float) -> torch.Tensor:
    """The share of the text's words that subsampling with t leaves, on average."""
    share = counts.double() / counts.sum()
    ratio = t / share
    return (share * (ratio.sqrt() + ratio).clamp(max=1)).sum()


def _search(answer, counts: torch.Tensor, left: float, t: float) -> None:
    """`Wrong` with the hint that fits a search that ended at t, the wrong place."""
    stays = float(_share_left(counts, t))
    if not 1e-4 < stays < 0.9999:
        raise Wrong(
            f"With your t, {t:.3g}, {'everything' if stays > 0.5 else 'nothing'} stays: the search "
            "went to an end of its range. A larger t keeps more; is a comparison turned?"
        )
    nearby, far = (float(number(call(answer, counts, left * by), "t")) for by in (0.992, 0.3))
    if stays < left and t == nearby != far:
        raise Wrong(
            f"The search stopped at {t:.3g}, the upper end of its range, where too little stays. "
            "Begin with a wider one."
        )
    if t.as_integer_ratio()[1] <= 2**16:  # as halving the range a few times leaves it
        raise Wrong(
            f"The search stopped at {t:.3g}, with {stays:.1%} in place of {left:.0%}: too few "
            "steps. Frequent words need a small t, to many digits."
        )


@exercise
def threshold(answer):
    """A function (counts, left) -> the t for which the share `left` of the text stays."""
    rank = torch.arange(1, between(300, 600), dtype=torch.float64)
    cases = [
        ((between(200_000, 900_000) / rank).ceil().long(), 0.5),
        ((between(200_000, 900_000) / rank).ceil().long(), between(30, 44) / 100),
        ((between(20_000, 90_000) / rank[:40]).ceil().long(), between(70, 85) / 100),
        (torch.randint(5, 100_000, (between(20, 60),)), between(20, 90) / 100),
        (torch.tensor([between(5, 900)]), between(96, 98) / 100),  # one word: t is largest here
        (torch.full((between(3, 9),), between(5, 900)), between(20, 90) / 100),
        (torch.tensor([90_000, 60_000, 1, 1, 1]), between(5, 9) / 100),
        ((between(2, 9) * 10**8 / rank).ceil().long(), 0.6),  # the sum is beyond int32
    ]
    for counts, left in cases:
        t = float(number(call(answer, counts, left), "t"))
        if not 0 <= t < float("inf"):
            raise Wrong(f"t is {t}; a number above zero is wanted.")
        share = counts.double() / counts.sum()

        def near(found, left=left):
            return abs(float(found) - left) <= 0.01 * left

        if near(_share_left(counts, t)):
            continue
        ratio = t / share
        both = ratio.sqrt() + ratio
        part = t / counts.double()
        largest = t * counts.max() / counts.double()
        known = [
            (1 - _share_left(counts, t), "That t drops the share that should stay."),
            (
                (share * both).sum(),
                "A probability above 1 was counted. Rare words are all kept: clamp.",
            ),
            (
                (share * ratio.sqrt().clamp(max=1)).sum(),
                "That is the paper's formula. The program has a second term, t / f.",
            ),
            (
                (share * ratio.clamp(max=1)).sum(),
                "The root's term is missing: √(t / f) + t / f.",
            ),
            (
                (share * (part.sqrt() + part).clamp(max=1)).sum(),
                "Those are counts. f is the word's share of the whole text.",
            ),
            (
                (share * (largest.sqrt() + largest).clamp(max=1)).sum(),
                "f is the share of the whole text, not of the most frequent word.",
            ),
            (
                both.clamp(max=1).mean(),
                "That share of the vocabulary stays, each word counted once. Weigh each word's "
                "probability by its share of the text.",
            ),
        ]
        recognise(left, known, near=lambda left, found: abs(float(found) - left) <= 1e-4 * left)
        # The words kept whole make stairs, and t stands where they cross `left`.
        below, above = (((by * ratio).sqrt() + by * ratio >= 1).double() for by in (0.999, 1.001))
        for weight in (share, torch.full_like(share, 1 / len(share))):
            if (weight * below).sum() <= left <= (weight * above).sum():
                raise Wrong(
                    "Words that are thinned stay in part. Count what is left of them as well."
                )
        _search(answer, counts, left, t)
        recognise(left, known, near=lambda left, found: near(found, left))
        raise Wrong(
            f"With your t, {t:.3g}, {float(_share_left(counts, t)):.1%} of the text stays, where "
            f"{left:.0%} is wanted (the counts begin with {counts[:3].tolist()})."
        )
    return "The larger t is, the more stays, so a bisection finds it."


@exercise
def shared(answer):
    """A function (v, u, n, K) -> the gradients of v, u and n, the drawn rows n being shared."""
    size = between(3, 6)
    cases = [
        (between(6, 8), between(3, 5), 3, 2, torch.float64, 1),
        (size, size, size, size, torch.float64, 1),
        (between(3, 6), between(3, 6), between(3, 6), 5, torch.float32, 1),
        (40, 24, 16, 5, torch.float64, 1),
        (1, 4, 3, 5, torch.float64, 1),
        (4, 1, 3, 5, torch.float64, 1),
        (4, 3, 1, 2, torch.float64, 1),
        (0, 3, 4, 5, torch.float32, 1),  # an empty batch
        (5, 3, 4, 2, torch.bfloat16, 0.4),
        (5, 4, 6, 3, torch.float64, 30),
    ]
    for B, M, D, K, dtype, size in cases:
        v, u, n = ((size * torch.randn(count, D)).to(dtype) for count in (B, B, M))
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
            _alike(f, t, f"The gradient of {name}", size)
            for f, t, name in zip(found, truth, names, strict=True)
        ]
        if all(right):
            if B == 40 and largest.shape.numel() > B * M * D // 2:
                raise Wrong(
                    f"Right numbers, by way of a tensor of shape {tuple(largest.shape)}. "
                    "A matrix product sums while it multiplies."
                )
            continue
        if size > 1:
            _overflows(found)
        if dtype in COARSE:
            raise Wrong(f"In {dtype} it goes wrong, and in float32 it is right.")
        v, u, n = given
        error = torch.sigmoid((v * u).sum(dim=1, keepdim=True)) - 1
        noise = torch.sigmoid(v @ n.T)
        if close(found[0], error * u + noise @ n) or close(found[2], noise.T @ v):
            raise Wrong("Every pair is charged for all M drawn words. Weigh each by K / M.")
        if close(found[0], error * u + noise @ n / M) or close(found[2], noise.T @ v / M):
            raise Wrong("K is missing: the M drawn words stand for K, so each counts K / M.")
        if close(found[0], error * u + noise @ n * K) or close(found[2], noise.T @ v * K):
            raise Wrong("Each of the M drawn words counts K. Together they do: K / M each.")
        every = torch.sigmoid(v @ u.T) - 1
        if close(found[0], every @ u + noise @ n * K / M) or close(found[1], every.T @ v):
            raise Wrong("v is scored with every line of u. Its true context is its own line alone.")
        if close(found[0], noise @ n * K / M):
            raise Wrong("v: the pull of its true context is missing.")
        if close(found[0], error * u):
            raise Wrong("v: the push of the drawn rows is missing.")
        if close(found[1], (error + 1) * v):
            raise Wrong("u: the true pair's error is σ − 1.")
        if close(found[1], error * u):
            raise Wrong("u: each row moves by the other's row, not by its own.")
        if any(close(f, -t) for f, t in zip(found, truth, strict=True)):
            raise Wrong("The sign is turned: σ − label, times the other's row.")
        if close(found[2], (noise - 1).T @ v * K / M):
            raise Wrong("n: a drawn word's label is 0.")
        if close(found[2], noise.T @ v * K / M / B):
            raise Wrong("n: summed over the pairs, not averaged.")
        name = names[right.index(False)]
        raise Wrong(f"The gradient of {name} is not it. Compare with autograd on the loss.")
    return "Two matrix products in place of B · M dot products, and the same numbers."
