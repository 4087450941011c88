"""Lesson 02, exercise 2: wrong answers and a part of their hints; right ones of unusual make."""

import fractions
import math

import numpy as np
import torch


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


WRONG = {
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
}

RIGHT = {
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
}
