"""Side lessons of lesson 08: wrong answers, and right ones of unusual make."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import optim


def following(near="before", among="seen", unit=True, how="mean", start="after"):
    """An answer to `follow` with these choices."""

    def follow(before, after, hidden, seen, k):
        table = before if near == "before" else after
        table = F.normalize(table, dim=1) if unit else table
        all_ids = torch.arange(len(before))
        others = {"seen": seen, "all": all_ids, "rest": all_ids[~torch.isin(all_ids, hidden)]}
        ids = others["seen" if among == "places" else among]
        close = (table[hidden] @ table[ids].T).topk(k).indices
        close = close if among == "places" else ids[close]
        out = (after if start == "after" else before).clone()
        moves = (after - before)[close]
        if how == "there":
            out[hidden] = after[close].mean(dim=1)
        else:
            out[hidden] += getattr(moves, how)(dim=1)
        return out

    return follow


def follow_in_place(before, after, hidden, seen, k):
    after[hidden] = following()(before, after, hidden, seen, k)[hidden]
    return after


def follow_by_loop(before, after, hidden, seen, k):
    out = after.clone()
    for word in hidden.tolist():
        nearness = F.cosine_similarity(before[seen], before[word].unsqueeze(0))
        best = seen[nearness.argsort(descending=True)[:k]]
        out[word] = out[word] + (after[best] - before[best]).sum(0) / k
    return out


def carrying(
    first_moment=True,
    second=True,
    once=False,
    late=False,
    root=True,
    last=0,
    g=1.0,
    still=False,
    fade=0.999,
):
    """An answer to `carried` with these choices."""

    def carried(rate, k, T):
        m = v = far = 0.0
        for t in range(1, T + 1 - last):
            now = g * (t == k)
            m, v = 0.9 * m + 0.1 * now, fade * v + 0.001 * now**2
            if v == 0 or (once and t > k):
                continue
            n = t - k + 1 if late else k if still else t
            up = m / (1 - 0.9**n) if first_moment else m
            down = v / (1 - 0.999**n) if second else v
            far += rate * up / (down**0.5 if root else down)
        return far

    return carried


def by_torch(rate, k, T):
    number = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = optim.Adam([number], lr=rate, eps=1e-30)
    for t in range(1, T + 1):
        number.grad = torch.full_like(number, float(t == k))
        optimizer.step()
    return number.detach().abs()


def by_numpy(rate, k, T):
    t = np.arange(k, T + 1)
    m = 0.1 * 0.9 ** (t - k) / (1 - 0.9**t)
    v = 0.001 * 0.999 ** (t - k) / (1 - 0.999**t)
    return (rate * m / np.sqrt(v)).sum()


def sharing(
    zero=False, itself=False, dot=False, order=False, everywhere=False, over="k", scale=1.0
):
    """An answer to `shared` with these choices."""

    def near(table, words, k):
        rows = table if everywhere else table[words]
        rows = rows if dot else F.normalize(rows, dim=1)
        scores = rows @ rows.T
        if not itself:
            scores.fill_diagonal_(0 if zero else -torch.inf)
        found = scores.topk(k).indices
        return found[words] if everywhere else found

    def shared(one, other, words, k):
        values = []
        for a, b in zip(near(one, words, k), near(other, words, k), strict=True):
            if order:
                both = (a == b).sum().item()
            else:
                both = len({*a.tolist()} & {*b.tolist()})
            values.append(both / {"k": k, "both": 2 * k - both, "one": 1}[over])
        return scale * sum(values) / len(values)

    return shared


def shared_by_cosine(one, other, words, k):
    total = 0
    for i in range(len(words)):
        best = []
        for table in (one, other):
            nearness = F.cosine_similarity(table[words], table[words[i]].unsqueeze(0))
            nearness[i] = -2
            best.append(nearness.argsort(descending=True)[:k])
        total += torch.isin(*best).sum()
    return total / (k * len(words))


WRONG = {
    "fine_tuning.follow": [
        (following(how="there"), "Add their mean"),
        (following(how="sum"), "k times too far"),
        (following(unit=False), "favours long rows"),
        (following(near="after"), "which have left"),
        (following(among="all"), "its own nearest"),
        (following(among="rest"), "among `seen`"),
        (following(start="before"), "as in `after`"),
        (lambda before, after, hidden, seen, k: after.clone(), "stand where they were"),
        (following(among="places"), r"seen\[places\]"),
        (follow_in_place, "wrote into its argument"),
        (lambda *given: following()(*given).float(), "dtype"),
        (lambda *given: following()(*given)[given[2]], "shape"),
    ],
    "fine_tuning.carried": [
        (carrying(once=True), "step k alone"),
        (carrying(first_moment=False), r"m / \(1 - 0.9\*\*t\) is missing|1 - 0.9"),
        (carrying(second=False), "1 - 0.999"),
        (carrying(first_moment=False, second=False), "early means are too small"),
        (carrying(late=True), "from the first"),
        (carrying(still=True), "not k"),
        (carrying(fade=1), "v fades too"),
        (carrying(root=False), "root of v|step k alone|times the rate"),
        (carrying(last=1), "steps are 1 to T|It does move"),
        (lambda rate, k, T: rate * T, "at every step"),
        (lambda rate, k, T: rate, "m carries on"),
        (lambda rate, k, T: -carrying()(rate, k, T), "without a sign"),
        (lambda rate, k, T: carrying()(1, k, T), "Multiply by the rate"),
        (lambda rate, k, T: 0, "It does move"),
    ],
    "fine_tuning.shared": [
        (sharing(itself=True), "its own nearest"),
        (sharing(zero=True), "cosine of 0"),
        (sharing(dot=True), "long rows"),
        (sharing(order=True), "in any order"),
        (sharing(everywhere=True), "among `words`"),
        (sharing(over="both"), "in either table"),
        (sharing(over="one"), "number of neighbours|Divide by k"),
        (sharing(scale=100), "percent"),
        (lambda *given: 1 - sharing()(*given), "do \\*not\\* have"),
    ],
}

RIGHT = {
    "fine_tuning.follow": [follow_by_loop, following()],
    "fine_tuning.carried": [by_torch, by_numpy, carrying(g=1e-3)],
    "fine_tuning.shared": [shared_by_cosine, lambda *given: np.float32(sharing()(*given))],
}
