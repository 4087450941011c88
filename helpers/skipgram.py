"""Skip-gram with negative sampling (word2vec), trained fast in plain PyTorch on one CPU core.

    words, rows, contexts = train(sentences, vector_size=100, negative=5, epochs=5)

The objective is that of Mikolov et al. 2013, "Distributed Representations of Words and Phrases and
their Compositionality": a word's row in one table should tell the words around it, by their rows in
a second table, from words drawn at random. What differs from word2vec's own program is the way to
the same expected gradient. It takes one pair of words at a time and draws negatives for each. Here:

- The sentences are shuffled and put end to end, and this stream is cut into blocks. One matrix
  product scores every centre of a block against every word of the block.
- The words near a centre are its positives. The words of other sentences are its negatives: since
  the sentences are shuffled, they are words drawn at random from the stream, and a weight of
  p_noise(word) / p_stream(word) makes them stand for words drawn from the noise distribution.
- Two more products give the gradients of all rows of the block, which are added to the tables.

So a row is fetched once for a few dozen scores, and nearly all arithmetic is matrix products. The
price: a word's gradients come in bursts, of all centres of a block at once, which plain SGD with a
learning rate of 0.05 did not survive. So each number's move is limited, by `largest`.

Sharing negatives among pairs, to this end, is from Ji et al. 2016, "Parallelizing Word2Vec in
Shared and Distributed Memory".

This file needs PyTorch alone and may be copied into other projects; it shows a progress bar where
tqdm is installed.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CENTRES = 1080  # in a step, about: with fewer, calling PyTorch costs more than its work
_REPEATS = 16  # of the most frequent word in a step: each adds to a move that knows of no other
_REPORTS = 100  # how often in a training the callback is called, and the progress bar moves


class Corpus(NamedTuple):
    """A text as ids.

    Attributes:
        words: the V words of the vocabulary, most frequent first, ties in alphabetical order.
        counts: int64 (V,), how often each occurs.
        ids: int64 (N,), the sentences' known words end to end, as places in `words`.
        lengths: int64 (S,), how many known words each sentence has.
    """

    words: list[str]
    counts: Tensor
    ids: Tensor
    lengths: Tensor


class Vectors(NamedTuple):
    """What training gives: the words, and float32 (V, D) rows of each table in their order.

    `rows` are the word vectors, gensim's `wv.vectors`; `contexts` is the table on the other side of
    the dot product, gensim's `syn1neg`.
    """

    words: list[str]
    rows: Tensor
    contexts: Tensor


def read(sentences: Iterable[Sequence[str]], min_count: int = 5) -> Corpus:
    """Sentences of words as a `Corpus`; words that occur fewer than `min_count` times are dropped.

    Raises:
        TypeError: `sentences`, or one of them, is a string.
        ValueError: there is no word, or none that occurs `min_count` times.
    """
    _check_int("min_count", min_count)
    if isinstance(sentences, str):
        raise TypeError(f"sentences is a string, {sentences[:30]!r}: pass lists of words")
    sentences = list(sentences)
    for i, sentence in enumerate(sentences):
        if isinstance(sentence, str):
            raise TypeError(f"sentence {i} is a string, {sentence[:30]!r}: pass a list of words, "
                            f"such as {sentence[:30].split()}")  # fmt: skip
    counts = Counter(chain.from_iterable(sentences))
    if not counts:
        raise ValueError("there is no word in sentences: pass lists of words")
    words = [word for word, count in counts.items() if count >= min_count]
    if not words:
        word, most = counts.most_common(1)[0]
        raise ValueError(f"no word occurs min_count={min_count} times; the most frequent, {word!r},"
                         f" occurs {most}: lower min_count or pass more text")  # fmt: skip
    words.sort(key=lambda word: (-counts[word], word))
    id_of = {word: i for i, word in enumerate(words)}
    known = [[id_of[word] for word in sentence if word in id_of] for sentence in sentences]
    return Corpus(
        words,
        torch.tensor([counts[word] for word in words]),
        torch.tensor(list(chain.from_iterable(known))),
        torch.tensor([len(sentence) for sentence in known]),
    )


def kept(counts: Tensor, sample: float) -> Tensor:
    """(V,) the chance, float64, that subsampling keeps an occurrence of each word.

    sqrt(t / f) + t / f, at most 1, where f is the word's share of the text and t is `sample`; 0
    keeps everything. This is the formula of word2vec.c and gensim, not that of the paper.
    """
    if not sample:
        return torch.ones(len(counts), dtype=torch.float64)
    rarity = sample * counts.sum().double() / counts
    return (rarity.sqrt() + rarity).clamp(max=1)


def noise_weights(counts: Tensor, keep: Tensor) -> Tensor:
    """(V,) p_noise / p_stream, float32: what a word of the stream counts for as a negative.

    p_noise is proportional to count ** 0.75, p_stream to the occurrences that subsampling keeps.
    """
    noise, stream = counts.double() ** 0.75, counts * keep
    return ((noise / noise.sum()) / (stream / stream.sum())).float()


@torch.no_grad()
def gradients(
    centres: Tensor,
    contexts: Tensor,
    sentence: Tensor,
    reach: Tensor,
    weights: Tensor,
    negative: float,
) -> tuple[Tensor, Tensor]:
    """The gradients of the summed negative-sampling loss of B blocks with respect to their rows.

    A block is C words, the centres, with w words before and w after them: the W = C + 2 w words.

    Args:
        centres: (B, C, D), rows of the table of words.
        contexts: (B, W, D), rows of the table of contexts.
        sentence: (B, W), a float that differs between sentences.
        reach: (B, C), a float: how far the window drawn for each centre reaches. At most w.
        weights: (B, W), what each word counts for as a negative.
        negative: how many negatives for each pair of a centre and a context.

    Returns:
        (B, C, D) and (B, W, D). For a centre u, with N contexts v in its window and sentence, and M
        words k of other sentences in the block, the loss is
        - sum_v log sigmoid(u v) - negative N / M sum_k weights[k] log sigmoid(- u k).
    """
    B, C, _ = centres.shape
    W = contexts.shape[1]
    w = (W - C) // 2

    def band(matrix: Tensor) -> Tensor:  # a view: the 2 w + 1 words around each centre
        return matrix.as_strided((B, C, 2 * w + 1), (C * W, W + 1, 1))

    # Comparing into floats gives zeros and ones to multiply by, in one pass.
    other, near = centres.new_empty(B, C, W), centres.new_empty(B, C, 2 * w + 1)
    torch.ne(sentence[:, w : w + C, None], sentence[:, None], out=other)
    torch.ge(reach[..., None], torch.arange(-w, w + 1).abs_(), out=near)
    near *= 1 - band(other)
    near[..., w] = 0  # a centre is not its own context

    found = torch.bmm(centres, contexts.mT).sigmoid_()
    positive = near * (band(found) - 1)  # the derivative of - log sigmoid
    share = near.sum(2, keepdim=True).mul_(negative) / other.sum(2, keepdim=True).clamp_(min=1)
    found *= other
    found *= weights[:, None]
    found *= share
    band(found).add_(positive)
    return torch.bmm(found, contexts), torch.bmm(found.mT, centres)


def train(
    sentences: Iterable[Sequence[str]] | Corpus,
    vector_size: int = 100,
    window: int = 5,
    negative: int = 5,
    epochs: int = 5,
    min_count: int = 5,
    sample: float = 1e-3,
    alpha: float = 0.025,
    min_alpha: float = 0.0001,
    largest: float = 0.05,
    seed: int = 1,
    progress: bool | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
) -> Vectors:
    """Word vectors of a text, by skip-gram with negative sampling and plain SGD.

    Arguments have gensim's names and defaults (`gensim.models.Word2Vec(sg=1)`). They mean the same:
    a centre's window is drawn from 1 to `window`, after subsampling; the learning rate falls in a
    line from `alpha` to `min_alpha`. Two things differ. Sentences are shuffled before each epoch,
    which the negatives rely on. And rows move once for about 1000 centres, fewer where a word makes
    up more than a sixtieth of the text. Each occurrence of a word adds its move, in which no number
    is above `largest`.

    Args:
        sentences: lists of words, or what `read` made of them; then `min_count` is not used.
        vector_size: D, the numbers in a row.
        largest: the limit of a number's move. Choose it with `alpha` and `epochs`: on two million
            words 0.0125 did better in five epochs and 0.05 in ten. With no limit it diverged at
            alpha 0.05.
        seed: the same seed gives the same vectors on the same machine. PyTorch's global random
            numbers are neither used nor changed.
        progress: whether to show a bar. Default: where training takes more than a second. Never
            where CI is set.
        callback: called as callback(fraction, rows) before the first step, with 0.0, and after each
            hundredth of the training; `rows` is the table itself, so clone what you keep.

    Raises:
        TypeError, ValueError: as `read`; a number is out of its range.
    """
    for name, value in dict(vector_size=vector_size, window=window, negative=negative,
                            epochs=epochs).items():  # fmt: skip
        _check_int(name, value)
    if not 0 <= sample < 1:
        raise ValueError(f"sample is {sample}: pass a share of the text, say 1e-3, or 0 for all")
    if not 0 <= min_alpha <= alpha < math.inf:
        raise ValueError(f"the learning rate falls from alpha={alpha} to min_alpha={min_alpha}: "
                         "pass finite numbers, 0 <= min_alpha <= alpha")  # fmt: skip
    if not largest > 0:
        raise ValueError(f"largest is {largest}: pass a limit above 0, such as 0.05")
    corpus = sentences if isinstance(sentences, Corpus) else read(sentences, min_count)
    generator = torch.Generator().manual_seed(seed)
    keep = kept(corpus.counts, sample)
    weights, keep = noise_weights(corpus.counts, keep), keep.float()
    V, D = len(corpus.words), vector_size
    rows = torch.rand(V, D, generator=generator).sub_(0.5).div_(D)
    contexts = torch.zeros(V, D)

    bar = _bar(progress)
    with bar or nullcontext():
        told = -1
        for epoch in range(epochs):
            for done, ids, sentence, reach in blocks(corpus, keep, window, generator):
                done = (epoch + done) / epochs
                reached = int(done * _REPORTS)
                if told < reached:
                    told = reached
                    _report(told, rows, callback, bar)
                rate = alpha - (alpha - min_alpha) * done
                of_centres, of_all = ids[:, window:-window].flatten(), ids.flatten()
                u = rows.index_select(0, of_centres).view(*reach.shape, D)
                v = contexts.index_select(0, of_all).view(*ids.shape, D)
                du, dv = gradients(u, v, sentence, reach, weights[ids], negative)
                _move(rows, of_centres, du, rate, largest)
                _move(contexts, of_all, dv, rate, largest)
        _report(_REPORTS, rows, callback, bar)
    return Vectors(corpus.words, rows, contexts)


def blocks(
    corpus: Corpus, keep: Tensor, window: int, generator: torch.Generator
) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
    """One epoch of a text: its shuffled, subsampled stream, a few blocks at a time.

    Args:
        keep: (V,) the chance that each word is kept.

    Yields:
        The share of the epoch that is done, then ids (B, W), sentence (B, W) and reach (B, C) as
        `gradients` has them. Each word of the stream is a centre once. The stream is closed to a
        ring, so that the first and the last have words around them too; a centre that is there to
        fill the last block has reach 0.
    """
    order = torch.randperm(len(corpus.lengths), generator=generator)
    lengths = corpus.lengths[order]
    stood = (corpus.lengths.cumsum(0) - corpus.lengths)[order]
    stands = lengths.cumsum(0) - lengths
    moved = torch.repeat_interleave(stood - stands, lengths)
    ids = corpus.ids[moved.add_(torch.arange(len(moved)))]
    # Only neighbours need to differ, and float32 counts to 2 ** 24.
    sentence = torch.repeat_interleave((torch.arange(len(order)) % 2**20).float(), lengths)
    (left,) = torch.nonzero(torch.rand(len(ids), generator=generator) < keep[ids], as_tuple=True)
    ids, sentence, N = ids[left], sentence[left], len(left)
    if N == 0:
        return
    W = max(64, 16 * math.ceil(window / 2))  # matrix products like multiples of 16
    C = W - 2 * window
    stream = corpus.counts * keep
    centres = min(_CENTRES, int(_REPEATS * stream.sum() / stream.max()), N)
    B = math.ceil(centres / C)
    rest = -N % (B * C)
    before, after = torch.arange(-window, 0), torch.arange(N, N + rest + window)
    ids = torch.cat([ids[before % N], ids, ids[after % N]])
    sentence = F.pad(sentence, (len(before), len(after)), value=-1)
    reach = F.pad(torch.randint(1, window + 1, (N,), generator=generator).float(), (0, rest))
    ids, sentence, reach = ids.unfold(0, W, C), sentence.unfold(0, W, C), reach.view(-1, C)
    for i in range(0, len(reach), B):
        yield i / len(reach), ids[i : i + B], sentence[i : i + B], reach[i : i + B]


def _move(table: Tensor, ids: Tensor, gradient: Tensor, rate: float, largest: float) -> None:
    """Add - rate * gradient, limited, to the rows of `ids`, (N,), in place; moves add up."""
    move = gradient.view(len(ids), -1).mul_(-rate).clamp_(-largest, largest)
    table.scatter_add_(0, ids[:, None].expand_as(move), move)


def _report(
    told: int, rows: Tensor, callback: Callable[[float, Tensor], None] | None, bar
) -> None:
    if bar is not None:
        bar.update(told - bar.n)
    if callback is not None:
        callback(told / _REPORTS, rows)


def _bar(progress: bool | None):
    """A progress bar, or None."""
    if progress is False or os.environ.get("CI"):
        return None
    try:
        from tqdm.auto import tqdm  # here: it is slow to import, and may not be there
    except ImportError:
        return None
    return tqdm(total=_REPORTS, desc="skip-gram", unit="%", delay=0 if progress else 1)


def _check_int(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}: pass an integer")
    if value < 1:
        raise ValueError(f"{name} is {value}: pass 1 or more")
