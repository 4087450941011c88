"""Questions that score word vectors: analogies and related pairs from documentation's own words.

data/analogies.csv and data/pairs.csv hold them. Half of each, the part "choosing", decided how
data/docs_word2vec.bin is trained; the other half, "kept", decided nothing and is for figures that
are reported. No pair of words stands in both halves.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.documentation import DATA

PARTS = ("choosing", "kept")
NEAR = 10  # a pair counts for a word if the other is among so many nearest
_CHUNK = 1 << 14  # rows normalised at once: a file of millions needs no second copy of itself
_TIE = 1e-6  # cosines this close are one in float32, and a tie is not won


class Analogy(NamedTuple):
    """`a` is to `b` as `c` is to `d`: d is the one right answer."""

    topic: str
    relation: str
    a: str
    b: str
    c: str
    d: str
    part: str


class Pair(NamedTuple):
    """Two words that documentation uses of the same things."""

    topic: str
    a: str
    b: str
    part: str


@dataclass(frozen=True)
class Score:
    """What `score` found. A question with a word that has no row counts as wrong.

    Attributes:
        right: bool (N,), whether each analogy is answered, in the order of `analogies(part)`.
        near: bool (M, 2), whether b is among the nearest of a, and a among those of b, in the
            order of `pairs(part)`.
        asked: bool (N + M,), whether every word of the question has a row: analogies, then pairs.
    """

    right: np.ndarray
    near: np.ndarray
    asked: np.ndarray

    @property
    def analogies(self) -> float:
        """The share of analogies answered, 0 to 1."""
        return float(self.right.mean())

    @property
    def pairs(self) -> float:
        """The share of words that have their mate among the nearest, 0 to 1."""
        return float(self.near.mean())

    @property
    def missing(self) -> int:
        """How many questions have a word without a row."""
        return int((~self.asked).sum())

    def __str__(self) -> str:
        told = (
            f"{self.right.sum()} of {self.right.size} analogies ({self.analogies:.0%}), "
            f"{self.near.sum()} of {self.near.size} mates ({self.pairs:.0%})"
        )
        lacking = f"; {self.missing} of {self.asked.size} questions have a word without a row"
        return told + lacking if self.missing else told


def analogies(part: str | None = None) -> list[Analogy]:
    """The analogies of a part, "choosing" or "kept"; without one, all. In the file's order."""
    return [question for question in _read("analogies.csv", Analogy) if _in(part, question.part)]


def pairs(part: str | None = None) -> list[Pair]:
    """The related pairs of a part, "choosing" or "kept"; without one, all. In the file's order."""
    return [question for question in _read("pairs.csv", Pair) if _in(part, question.part)]


def score(
    words: Sequence[str], rows: np.ndarray, part: str | None = "kept", exclude: bool = True
) -> Score:
    """Ask vectors the questions of a part.

    An analogy is right where, of all rows, d's has the greatest cosine with b - a + c, each of
    the three taken at length 1; a, b and c themselves do not compete (3CosAdd, as in Mikolov et
    al. 2013, "Linguistic Regularities in Continuous Space Word Representations"). A pair is asked
    twice: is the other word among the `NEAR` nearest of this one? A tie is not a win, so
    rows that are all the same score 0.

    More rows make every question harder: compare scores over the same words only.

    Args:
        words: V distinct words.
        rows: (V, D) finite numbers, an array or a tensor. A row of zeros has no direction: its
            word counts as one without a row.
        part: "choosing", "kept" or, for both, None.
        exclude: False lets a, b and c compete, which the usual score hides.

    Raises:
        ValueError: rows is not V x D, holds NaN or an infinity, a word occurs twice, or the part
            is unknown.
    """
    told, paired = analogies(part), pairs(part)
    if hasattr(rows, "detach"):  # a tensor, perhaps a table that is being trained
        rows = rows.detach().float().cpu().numpy()
    rows = np.asarray(rows)
    id_of = {word: i for i, word in enumerate(words)}
    if rows.ndim != 2 or len(rows) != len(words):
        raise ValueError(f"rows has shape {rows.shape} for {len(words)} words: pass (V, D)")
    if len(id_of) < len(words):
        twice = next(word for i, word in enumerate(words) if id_of[word] != i)
        raise ValueError(f"{twice!r} occurs more than once in words: keep one row of each word")
    lengths = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        lengths[chunk] = np.linalg.norm(rows[chunk].astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        word = words[int(np.flatnonzero(~np.isfinite(lengths))[0])]
        raise ValueError(f"the row of {word!r} is not finite: such vectors have no score")
    has_row = {word for word, i in id_of.items() if lengths[i] > 0}

    def ask(questions: list, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Which questions have rows, and the ids of their words, one column a name."""
        texts = [[getattr(question, name) for name in names] for question in questions]
        asked = np.array([has_row.issuperset(text) for text in texts], dtype=bool)
        ids = [[id_of[word] for word in text] for text, ok in zip(texts, asked, strict=True) if ok]
        return asked, np.array(ids, dtype=np.int64).reshape(-1, len(names))

    asked, ids = ask(told, "abcd")
    a, b, c, _ = rows[ids.T] / lengths[ids.T, None]
    inputs = ids[:, :3] if exclude else ids[:, :0]
    right = np.zeros(len(told), dtype=bool)
    right[asked] = _ahead(rows, lengths, b - a + c, ids[:, 3], inputs) == 0
    asked_pairs, ids = ask(paired, "ab")
    unit = rows[ids.T] / lengths[ids.T, None]
    near = np.zeros((len(paired), 2), dtype=bool)
    for side in (0, 1):
        own, mate = ids[:, side], ids[:, 1 - side]
        ahead = _ahead(rows, lengths, unit[side], mate, own[:, None])
        near[asked_pairs, side] = ahead < NEAR
    return Score(right, near, np.concatenate([asked, asked_pairs]))


def _ahead(
    rows: np.ndarray,
    lengths: np.ndarray,
    queries: np.ndarray,
    answers: np.ndarray,
    excluded: np.ndarray,
) -> np.ndarray:
    """For each query (Q, D): how many rows are at least as near to it as the row of its answer.

    Not counted are the answer itself, the rows in `excluded` (Q, any) and rows of zeros.
    """
    size = np.linalg.norm(queries, axis=1, keepdims=True)
    queries = queries / np.where(size > 0, size, 1)
    found = rows[answers] / lengths[answers, None]
    least = (queries * found).sum(axis=1) - _TIE  # (Q,)
    out = np.column_stack([answers, excluded])
    ahead = np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        length = lengths[chunk, None]
        unit = rows[chunk] / np.where(length > 0, length, np.inf)
        reach = queries @ unit.T >= least[:, None]  # (Q, chunk)
        reach[:, lengths[chunk] == 0] = False
        query, place = np.nonzero((out >= start) & (out < start + len(unit)))
        reach[query, out[query, place] - start] = False
        ahead += reach.sum(axis=1)
    return ahead


def _in(part: str | None, own: str) -> bool:
    if part is not None and part not in PARTS:
        raise ValueError(f"part is {part!r}: it is one of {PARTS}, or None for both")
    return part is None or own == part


def _read(name: str, kind: type) -> list:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return [kind(**row) for row in csv.DictReader(file)]
