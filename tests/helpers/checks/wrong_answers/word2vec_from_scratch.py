"""Lesson 06: wrong answers that readers give, and a part of the hint that each should get."""

from functools import partial

import torch
import torch.nn.functional as F


def paired(ids, sentence, window, near=None, border=True, both=True, key=None, once=False):
    """Exercise 1 of lesson 06, with what wrong answers get wrong as arguments."""
    near = near or (lambda i, j, window: 0 < abs(i - j) <= window)
    key = key or (lambda i: int(ids[i]))
    found = [
        (key(i), key(j))
        for i in range(len(ids))
        for j in range(len(ids))
        if near(i, j, window) and (not border or sentence[i] == sentence[j]) and (both or i < j)
    ]
    return torch.tensor(sorted(set(found)) if once else found).T


def other_words(ids, sentence, window):
    return paired(ids, sentence, window, lambda i, j, w: abs(i - j) <= w and ids[i] != ids[j])


def errors(v, u):
    """σ(score) − label of exercise 2."""
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


def moved_first(v, u):
    """The context's step uses a centre that has been moved already."""
    dv, _ = from_errors(v, u, errors(v, u))
    return dv, torch.einsum("bk,bd->bkd", errors(v, u), v - 0.1 * dv)


ROWS = {
    "CBOW, softmax: first table": {2, 4, 7},
    "CBOW, softmax: second table": set(range(8)),
    "CBOW, sampling: second table": {0, 1, 5},
    "skip-gram, sampling: first table": {1},
    "skip-gram, sampling: second table": {0, 2, 4, 5, 7},
}


def kept(counts, t, share=None, clamped=True, root=True, second=True):
    """Exercise 4 of lesson 06, with its mistakes to choose from."""
    ratio = t / (counts / counts.sum() if share is None else share(counts))
    value = root * ratio.sqrt() + second * ratio
    return value.clamp(max=1) if clamped else value


def shared(v, u, n, K, weight=True, true=True, drawn=True, sign=1, label=0):
    """Exercise 5 of lesson 06, with its mistakes to choose from."""
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


def part(index, change):
    """The right three gradients, one of them changed."""

    def answer(v, u, n, K):
        found = list(shared(v, u, n, K))
        found[index] = change(v, u, n, K, found[index])
        return found

    return answer


WRONG = {
    "word2vec_from_scratch.pairs": [
        (partial(paired, border=False), "cross from one sentence"),
        (partial(paired, near=lambda i, j, w: abs(i - j) <= w), "paired with itself"),
        (partial(paired, near=lambda i, j, w: 0 < abs(i - j) < w), "ends too early"),
        (partial(paired, near=lambda i, j, w: 0 < abs(i - j) <= w + 1), "one place too far"),
        (partial(paired, near=lambda i, j, w: i != j and -w <= j - i < w), "stops before"),
        (partial(paired, both=False), "One side only"),
        (other_words, "compare places"),
        (partial(paired, once=True), "counts as often"),
        (partial(paired, key=lambda i: i), "places in the text"),
        (lambda ids, sentence, window: paired(ids, sentence, window).T, "One column for each"),
        (lambda ids, sentence, window: paired(ids, sentence, window).tolist(), "A tensor of shape"),
        (lambda ids, sentence, window: paired(ids, sentence, window).float(), "int64"),
        (lambda ids, sentence, window: paired(ids, sentence, window)[:, 1:], "there are"),
        (lambda ids, sentence, window: paired(ids.mul_(1), sentence.zero_(), window), "wrote into"),
    ],
    "word2vec_from_scratch.gradients": [
        (unlabelled, "label is missing"),
        (by_autograd, "Autograd is switched off"),
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
    ],
    "word2vec_from_scratch.rows": [
        (ROWS | {"CBOW, softmax: first table": {1}}, "What goes in"),
        (ROWS | {"CBOW, softmax: first table": {0, 2, 4, 5, 7}}, "second table"),
        (ROWS | {"CBOW, softmax: first table": {1, 2, 4, 7}}, "looked up there"),
        (ROWS | {"CBOW, softmax: second table": {1}}, "which words does a softmax"),
        (ROWS | {"CBOW, sampling: second table": {1}}, "learn that they are wrong"),
        (ROWS | {"CBOW, sampling: second table": {0, 5}}, "true word is asked"),
        (ROWS | {"CBOW, sampling: second table": {0, 2, 4, 5, 7}}, "What is guessed"),
        (ROWS | {"skip-gram, sampling: first table": {2, 4, 7}}, "What goes in"),
        (ROWS | {"skip-gram, sampling: second table": {0, 1, 5}}, "What is guessed"),
        (ROWS | {"skip-gram, sampling: second table": set(range(8))}, "scored"),
        (ROWS | {"skip-gram, sampling: second table": {0, 1, 2, 4, 5, 7}}, "other table"),
        (ROWS | {"CBOW, sampling: second table": {0, 1, 2, 4, 5, 7}}, "other table"),
        (ROWS | {"skip-gram, sampling: first table": {8}}, "rows 0 to 7"),
        (ROWS | {"skip-gram, sampling: first table": 1}, "a set of rows"),
        (ROWS | {"skip-gram, sampling: first table": ...}, "filled in"),
    ],
    "word2vec_from_scratch.keep": [
        (lambda counts, t: 1 - kept(counts, t), "being dropped"),
        (partial(kept, clamped=False), "clamp"),
        (partial(kept, share=lambda counts: counts), "Those are counts"),
        (partial(kept, share=lambda counts: counts / counts.max()), "most frequent one"),
        (partial(kept, second=False), "second term"),
        (partial(kept, root=False), "root's term"),
        (lambda counts, t: kept(counts, t) * counts, "how many are kept"),
        (lambda counts, t: kept(counts, t).round().long(), "no whole numbers"),
        (lambda counts, t: kept(counts, t).tolist(), "A tensor is wanted"),
        (lambda counts, t: kept(counts, t).mean(), "One probability for each"),
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
        (lambda v, u, n, K: shared(v, u, n, K)[:2], "Three gradients"),
    ],
}
