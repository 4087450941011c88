"""Lesson 06: wrong answers that readers give, and a part of the hint that each should get."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import grad as imported_grad


def errors(v, u):
    """σ(score) − label."""
    error = torch.sigmoid(torch.einsum("bd,bkd->bk", v, u))
    error[:, 0] -= 1
    return error


def from_errors(v, u, error):
    return torch.einsum("bk,bkd->bd", error, u), torch.einsum("bk,bd->bkd", error, v)


def unlabelled(v, u):
    return from_errors(v, u, torch.sigmoid(torch.einsum("bd,bkd->bk", v, u)))


def exchanged(v, u):
    error = torch.sigmoid(torch.einsum("bd,bkd->bk", v, u))
    error[:, 1:] -= 1
    return from_errors(v, u, error)


def unsquashed(v, u):
    error = torch.einsum("bd,bkd->bk", v, u)
    error[:, 0] -= 1
    return from_errors(v, u, error)


def drawn_turned(v, u):
    error = errors(v, u)
    error[:, 1:] *= -1
    return from_errors(v, u, error)


def by_softmax(v, u):
    error = torch.softmax(torch.einsum("bd,bkd->bk", v, u), dim=1)
    error[:, 0] -= 1
    return from_errors(v, u, error)


def derived_twice(v, u):
    sigma = torch.sigmoid(torch.einsum("bd,bkd->bk", v, u))
    return from_errors(v, u, errors(v, u) * sigma * (1 - sigma))


def own_rows(v, u):
    error = errors(v, u)
    return torch.einsum("bk,bd->bd", error, v), torch.einsum("bk,bkd->bkd", error, u)


def averaged(v, u):
    dv, du = from_errors(v, u, errors(v, u))
    return dv / u.shape[1], du


def true_row_only(v, u):
    dv, du = from_errors(v, u, errors(v, u))
    return errors(v, u)[:, :1] * u[:, 0], du


def by_autograd(v, u):
    v.requires_grad_(), u.requires_grad_()
    scores = torch.einsum("bd,bkd->bk", v, u)
    (-F.logsigmoid(scores[:, 0]).sum() - F.logsigmoid(-scores[:, 1:]).sum()).backward()
    return v.grad, u.grad


def by_any_autograd(way):
    """The gradients by one of autograd's functions, for the sum of (1 + K) losses a pair."""

    def answer(v, u):
        def loss(v, u):
            scores = torch.einsum("bd,bkd->bk", v, u)
            return -F.logsigmoid(scores[:, 0]).sum() - F.logsigmoid(-scores[:, 1:]).sum()

        with torch.enable_grad():
            return way(loss, v.clone().requires_grad_(), u.clone().requires_grad_())

    return answer


def by_backward(loss, v, u):
    torch.autograd.backward(loss(v, u))
    return v.grad, u.grad


def moved_first(v, u):
    """The context's step uses a centre that has been moved already."""
    dv, _ = from_errors(v, u, errors(v, u))
    return dv, torch.einsum("bk,bd->bkd", errors(v, u), v - 0.1 * dv)


ROWS = {
    "CBOW, softmax: first table": {2, 4, 7},
    "CBOW, softmax: second table": set(range(8)),
    "skip-gram, sampling: first table": {1},
    "skip-gram, sampling: second table": {0, 2, 4, 5, 7},
}


def chance(ratio, root=True, second=True, clamped=True):
    """√(t / f) + t / f, at most 1, with its mistakes to choose from."""
    value = root * ratio.sqrt() + second * ratio
    return value.clamp(max=1) if clamped else value


def threshold(counts, left, share=None, weigh=True, drop=False, **mistakes):
    """The t that leaves a share of the text, by bisection, with its mistakes to choose from."""
    counts = counts.double()
    of_text = counts / counts.sum()
    f = of_text if share is None else share(counts)
    weight = of_text if weigh else torch.full_like(counts, 1 / len(counts))
    low, high = 0.0, 2.0 * float(counts.sum())
    for _ in range(80):
        t = (low + high) / 2
        stays = float((weight * chance(t / f, **mistakes)).sum())
        if (1 - stays if drop else stays) < left:
            low, high = (low, t) if drop else (t, high)
        else:
            low, high = (t, high) if drop else (low, t)
    return high


def whole_words(counts, left):
    """Counts the words that are kept whole alone, weighed by the text."""
    share = counts.double() / counts.sum()
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        whole = (t / share).sqrt() + t / share >= 1
        low, high = (t, high) if (share * whole).sum() < left else (low, t)
    return high


def searched(counts, left, turned=False, steps=60, high=1.0):
    """A bisection with a mistake in the search."""
    share = counts.double() / counts.sum()
    low = 0.0
    for _ in range(steps):
        t = (low + high) / 2
        too_little = float((share * chance(t / share)).sum()) < left
        low, high = (t, high) if too_little != turned else (low, t)
    return high


def by_logarithms(counts, left):
    """A search over powers of ten."""
    share = counts.double() / counts.sum()
    grid = torch.logspace(-9, 1, 4001, dtype=torch.float64)
    stays = (share * chance(grid.unsqueeze(1) / share)).sum(dim=1)
    return grid[(stays - left).abs().argmin()]


def one_at_a_time(counts, left):
    """Python's numbers alone."""
    total, t, step = sum(counts.tolist()), 0.0, 0.5
    for _ in range(60):
        shares = [count / total for count in counts.tolist()]
        rarity = [(t + step) / f for f in shares]
        stays = sum(f * min(1.0, r**0.5 + r) for f, r in zip(shares, rarity, strict=True))
        t += step if stays <= left else 0.0
        step /= 2
    return [t][0]


def counts_written(counts, left):
    counts.clamp_(min=1).mul_(2)
    return threshold(counts, left)


def shared(v, u, n, K, weight=True, true=True, drawn=True, sign=1, label=0):
    """The three gradients of shared negatives, with mistakes to choose from."""
    error = torch.sigmoid((v * u).sum(dim=1, keepdim=True)) - 1
    noise = torch.sigmoid(v @ n.T) * (K / len(n) if weight else 1)
    dv = true * error * u + drawn * noise @ n
    dn = noise.T @ v if label == 0 else (torch.sigmoid(v @ n.T) - 1).T @ v * K / len(n)
    return sign * dv, sign * error * v, sign * dn


def shared_by_autograd(v, u, n, K):
    given = [part.requires_grad_() for part in (v, u, n)]
    drawn = F.logsigmoid(-v @ n.T).sum() * K / len(n)
    return torch.autograd.grad(-F.logsigmoid((v * u).sum(dim=1)).sum() - drawn, given)


def one_by_one(v, u, n, K):
    """Right numbers, by way of every pair with every drawn row."""
    _, du, _ = shared(v, u, n, K)
    products = v.unsqueeze(1) * n
    noise = torch.sigmoid(products.sum(dim=-1)) * K / len(n)
    error = torch.sigmoid((v * u).sum(dim=1, keepdim=True)) - 1
    dv = error * u + (noise.unsqueeze(-1) * n).sum(dim=1)
    return dv, du, (noise.unsqueeze(-1) * v.unsqueeze(1)).sum(dim=0)


def nearly_one_by_one(v, u, n, K):
    """Right numbers, with every pair beside every drawn row but the last."""
    (v.unsqueeze(1) * n[:-1]).sum()
    return shared(v, u, n, K)


def every_context(v, u, n, K):
    """Each centre is scored with every line of u."""
    error = torch.sigmoid(v @ u.T) - 1
    noise = torch.sigmoid(v @ n.T) * (K / len(n))
    return error @ u + noise @ n, error.T @ v, noise.T @ v


def with_errors(change):
    """The gradients from errors that `change` makes of the scores and of the labels' place."""

    def answer(v, u):
        scores = torch.einsum("bd,bkd->bk", v, u)
        true = torch.zeros_like(scores, dtype=torch.bool)
        true[:, 0] = True
        return from_errors(v, u, change(scores, true))

    return answer


def part(index, change):
    """The right three gradients, one of them changed."""

    def answer(v, u, n, K):
        found = list(shared(v, u, n, K))
        found[index] = change(v, u, n, K, found[index])
        return found

    return answer


def row_by_row(v, u):
    """Right, a pair at a time."""
    of_v, of_u = torch.zeros_like(v), torch.zeros_like(u)
    for b in range(len(v)):
        for k in range(u.shape[1]):
            error = torch.sigmoid(v[b] @ u[b, k]) - int(k == 0)
            of_v[b] += error * u[b, k]
            of_u[b, k] = error * v[b]
    return [of_v, of_u]


def by_products(v, u):
    """Right, by batched products and −σ(−x) for σ(x) − 1."""
    scores = (u @ v.unsqueeze(2)).squeeze(2)
    error = torch.cat([-torch.sigmoid(-scores[:, :1]), torch.sigmoid(scores[:, 1:])], dim=1)
    return (error.unsqueeze(1) @ u).squeeze(1), error.unsqueeze(2) * v.unsqueeze(1)


def overflowing(v, u):
    e = torch.exp(torch.einsum("bd,bkd->bk", v, u))
    error = e / (1 + e)
    error[:, 0] -= 1
    return from_errors(v, u, error)


def in_float32(v, u):
    return tuple(g.to(v.dtype) for g in from_errors(v.float(), u.float(), errors(v, u).float()))


def always_float32(v, u):
    return from_errors(v.float(), u.float(), errors(v.float(), u.float()))


def put_back(v, u):
    v.mul_(2).div_(2)
    return from_errors(v, u, errors(v, u))


def autograd_left_on(v, u):
    torch.set_grad_enabled(True)
    return from_errors(v, u, errors(v, u))


def drawn_only(v, u):
    dv, du = from_errors(v, u, errors(v, u))
    return dv - errors(v, u)[:, :1] * u[:, 0], du


def shared_by_einsum(v, u, n, K):
    """Right, by einsum, as a list."""
    true = -torch.sigmoid(-torch.einsum("bd,bd->b", v, u)).unsqueeze(1)
    noise = torch.sigmoid(torch.einsum("bd,md->bm", v, n)) * K / n.shape[0]
    return [
        true * u + torch.einsum("bm,md->bd", noise, n),
        true * v,
        torch.einsum("bm,bd->md", noise, v),
    ]


def shared_in_one_product(v, u, n, K):
    """Right: the drawn words' errors are weighted last."""
    true = torch.sigmoid((v * u).sum(1)).sub(1).unsqueeze(1)
    noise = torch.sigmoid(n @ v.T)
    return true * u + (noise.T @ n) * (K / len(n)), v * true, (noise @ v) * (K / len(n))


def shared_overflowing(v, u, n, K):
    e = torch.exp(v @ n.T)
    noise = e / (1 + e) * (K / len(n))
    error = torch.sigmoid((v * u).sum(dim=1, keepdim=True)) - 1
    return error * u + noise @ n, error * v, noise.T @ v


# Right answers of unusual make.
RIGHT = {
    "word2vec_from_scratch.gradients": [row_by_row, by_products, in_float32],
    "word2vec_from_scratch.rows": [
        ROWS | {"CBOW, softmax: second table": range(8)},
        {name: [torch.tensor(row) for row in rows] for name, rows in ROWS.items()},
        {name: torch.tensor(sorted(rows)) for name, rows in ROWS.items()},
        {name: np.array([*rows, *rows]) for name, rows in ROWS.items()},
    ],
    "word2vec_from_scratch.threshold": [
        threshold,
        by_logarithms,
        one_at_a_time,
        lambda counts, left: torch.tensor([threshold(counts, left)]),
    ],
    "word2vec_from_scratch.shared": [shared, shared_by_einsum, shared_in_one_product],
}

WRONG = {
    "word2vec_from_scratch.gradients": [
        (unlabelled, "label is missing"),
        (by_autograd, "Autograd is switched off"),
        (by_any_autograd(by_backward), "Autograd is switched off"),
        *(
            (by_any_autograd(way), "Autograd is switched off")
            for way in (
                lambda loss, v, u: torch.autograd.functional.jacobian(loss, (v, u)),
                lambda loss, v, u: torch.autograd.functional.vjp(loss, (v, u))[1],
                lambda loss, v, u: torch.func.grad_and_value(loss, (0, 1))(v, u)[0],
                lambda loss, v, u: imported_grad(loss, (0, 1))(v, u),
                lambda loss, v, u: torch.func.jacfwd(loss, (0, 1))(v, u),
                lambda loss, v, u: torch.func.vjp(loss, v, u)[1](torch.ones((), dtype=v.dtype)),
            )
        ),
        (with_errors(lambda s, true: torch.sigmoid(s) - 1), "label of a drawn word is 0"),
        (
            with_errors(lambda s, true: torch.sigmoid(-s).where(~true, torch.sigmoid(s) - 1)),
            "error is not σ",
        ),
        (
            with_errors(lambda s, true: torch.sigmoid(s).where(~true, torch.sigmoid(-s))),
            "true pair's sign is turned",
        ),
        (
            with_errors(lambda s, true: -F.logsigmoid(torch.where(true, s, -s))),
            "That is the loss",
        ),
        (lambda v, u: from_errors(v, u, -errors(v, u)), "sign is turned"),
        (lambda v, u: from_errors(v, u, errors(v, u) / len(v)), "loss is a sum"),
        (exchanged, "exchanged"),
        (unsquashed, "σ is missing"),
        (by_softmax, "softmax"),
        (drawn_turned, "drawn words' sign"),
        (derived_twice, "σ' is too much"),
        (own_rows, "other's row"),
        (averaged, "not their mean"),
        (true_row_only, "drawn rows pull"),
        (moved_first, "gradient of u is not it"),
        (lambda v, u: from_errors(v, u, errors(v, u))[0], "A pair is wanted"),
        (lambda v, u: from_errors(v, u, errors(v, u))[::-1], "shape"),
        (lambda v, u: [g.float() for g in from_errors(v, u, errors(v, u))], "float64 is wanted"),
        (always_float32, "is wanted"),
        (overflowing, "overflows"),
        (put_back, "wrote into"),
        (autograd_left_on, "left it so"),
        (drawn_only, "true context pulls"),
        (lambda v, u: (from_errors(v, u, -errors(v, u))[0], unlabelled(v, u)[1]), "v: the sign"),
    ],
    "word2vec_from_scratch.rows": [
        (ROWS | {"CBOW, softmax: first table": {1}}, "What goes in"),
        (ROWS | {"CBOW, softmax: first table": {0, 2, 4, 5, 7}}, "looked up there"),
        (ROWS | {"CBOW, softmax: first table": set(range(8))}, "looked up there"),
        (ROWS | {"skip-gram, sampling: first table": {0, 1, 5}}, "second table"),
        (ROWS | {"CBOW, softmax: first table": {1, 2, 4, 7}}, "looked up there"),
        (ROWS | {"CBOW, softmax: second table": {1}}, "which words does a softmax"),
        (ROWS | {"CBOW, softmax: second table": {0, 2, 3, 4, 5, 6, 7}}, "below 1"),
        (ROWS | {"CBOW, softmax: first table": set()}, "no row at all"),
        (ROWS | {"skip-gram, sampling: first table": {1.5}}, "rows 0 to 7"),
        (ROWS | {"skip-gram, sampling: first table": "1"}, "a set of rows"),
        (ROWS | {"skip-gram, sampling: second table": {2, 4, 7}}, "learn that they are wrong"),
        (ROWS | {"skip-gram, sampling: second table": {0, 5}}, "true word is asked"),
        (ROWS | {"skip-gram, sampling: first table": {2, 4, 7}}, "What goes in"),
        (ROWS | {"skip-gram, sampling: second table": {0, 1, 5}}, "What is guessed"),
        (ROWS | {"skip-gram, sampling: second table": set(range(8))}, "scored"),
        (ROWS | {"skip-gram, sampling: second table": {0, 1, 2, 4, 5, 7}}, "other table"),
        (ROWS | {"skip-gram, sampling: first table": {8}}, "rows 0 to 7"),
        (ROWS | {"skip-gram, sampling: first table": 1}, "a set of rows"),
        (ROWS | {"skip-gram, sampling: first table": ...}, "filled in"),
    ],
    "word2vec_from_scratch.threshold": [
        (lambda counts, left: threshold(counts, 1 - left), "drops the share"),
        (partial(threshold, drop=True), "drops the share"),
        (partial(threshold, clamped=False), "clamp"),
        (partial(threshold, second=False), "second term"),
        (partial(threshold, root=False), "root's term"),
        (partial(threshold, share=lambda counts: counts), "Those are counts"),
        (partial(threshold, share=lambda counts: counts / counts.max()), "most frequent word"),
        (partial(threshold, weigh=False), "Weigh each word"),
        (whole_words, "stay in part|term is missing"),
        (partial(searched, turned=True), "turned"),
        (partial(searched, steps=9), "too few steps"),
        *((partial(searched, high=high), "wider") for high in (0.1, 0.3, 0.35)),
        (lambda counts, left: 2 * threshold(counts, left), "of the text stays"),
        (lambda counts, left: 0.001, "of the text stays"),
        (lambda counts, left: -threshold(counts, left), "above zero"),
        (lambda counts, left: chance(left / (counts / counts.sum())), "should be a number"),
        (lambda counts, left: print(left), "return"),
        (counts_written, "wrote into"),
    ],
    "word2vec_from_scratch.shared": [
        (shared_by_autograd, "Autograd is switched off"),
        (partial(shared, weight=False), "K / M"),
        (partial(shared, true=False), "true context is missing"),
        (partial(shared, drawn=False), "push of the drawn"),
        (partial(shared, sign=-1), "sign is turned"),
        (partial(shared, label=1), "label is 0"),
        (part(2, lambda v, u, n, K, dn: dn / len(v)), "not averaged"),
        (part(1, lambda v, u, n, K, du: du + v), "σ − 1"),
        (part(1, lambda v, u, n, K, du: du * 2), "gradient of u is not it"),
        (one_by_one, "A matrix product sums"),
        (nearly_one_by_one, "A matrix product sums"),
        (every_context, "its own line alone"),
        (lambda v, u, n, K: shared(v, u, n, K * len(n)), "K / M each"),
        (lambda v, u, n, K: shared(v, u, n, K)[:2], "Three gradients"),
        (shared_overflowing, "overflows"),
        (part(1, lambda v, u, n, K, du: du / v * u), "not by its own"),
        (lambda v, u, n, K: [g.float() for g in shared(v, u, n, K)], "float64 is wanted"),
        (lambda v, u, n, K: shared(v, u, n, 1), "K is missing"),
        (lambda v, u, n, K: shared(v.mul_(2).div_(2), u, n, K), "wrote into"),
    ],
}
