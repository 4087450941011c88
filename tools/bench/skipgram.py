"""Word vectors from documentation: gensim and helpers.skipgram, how fast and how good.

Both train skip-gram with negative sampling on the same sentences, on one thread (gensim's one
worker has a second one that hands it the text), with the same vocabulary, window, subsampling,
negatives, epochs and learning rate that falls in a line. They take turns, a seed at a time. Timed
is training alone, without reading the text and building the vocabulary. A word of the text counts
once an epoch, whether subsampling keeps it or not. The score is that of helpers.analogies: its part
"choosing" chose the rate, the limit of a move and the sizes of blocks and steps; its part
"kept" chose nothing, though a look at it, told in data/README.md, led to the search for a limit.

The climb leads from the plainest PyTorch to helpers.skipgram, in five steps that train the same
objective, timed on a slice of the text.
"""

import dataclasses
import importlib.metadata
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import analogies, documentation, skipgram

from .common import Block, short, target, targets

CPU = torch.device("cpu")
WAYS = ("gensim", "helpers.skipgram")


@dataclasses.dataclass(frozen=True)
class Parameters:
    negatives: tuple[int, ...] = (5, 10)
    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int = 5
    vector_size: int = 100
    window: int = 5
    sample: float = 1e-3
    min_count: int = 5
    alpha: float = 0.05  # for both: gensim scores no better at its default, 0.025, or at 0.075
    largest: float = 0.0125  # of helpers.skipgram, for five epochs at this rate
    slice_words: int = 60_000  # of the text, on which the climb is timed
    rounds: int = 2  # of the climb
    sentences: int | None = None  # of the text; all of it if None


DEFAULT = Parameters()
TINY = Parameters((5,), seeds=(1, 2), epochs=1, vector_size=8, slice_words=3_000, rounds=1,
                  sentences=1_500)  # fmt: skip


def missing() -> str | None:
    """What stands in the way of this benchmark, in a sentence."""
    if importlib.util.find_spec("gensim") is None:
        return "The benchmark skipgram compares with gensim, which is not installed: left out."
    return None


def measured(p: Parameters) -> dict[str, Any]:
    """The record: both ways for each number of negatives and seed, and the climb."""
    sentences = documentation.sentences()[: p.sentences]
    corpus = skipgram.read(sentences, p.min_count)
    words = sum(map(len, sentences))
    rows = []
    for negative in p.negatives:
        for seed in p.seeds:
            for way, train in (("gensim", _gensim), ("helpers.skipgram", _ours)):
                seconds, vectors = train(sentences, corpus, negative, seed, p)
                scores = {part: analogies.score(*vectors, part) for part in analogies.PARTS}
                rows.append({
                    "way": way, "negative": negative, "seed": seed, "seconds": short(seconds),
                    "words_per_second": round(words * p.epochs / seconds),
                    **{f"{part} {name}": short(getattr(score, name))
                       for part, score in scores.items() for name in ("analogies", "pairs")},
                })  # fmt: skip
    gensim = {negative: _fastest(rows, "gensim", negative) for negative in p.negatives}
    climb = [_climb_row(step, p, seconds, words_, gensim)
             for step, (seconds, words_) in _climb(sentences, corpus, p).items()]  # fmt: skip
    given = dataclasses.asdict(p)
    del given["slice_words"], given["rounds"], given["sentences"]
    return {
        "benchmark": "skipgram",
        "parameters": given,
        "gensim": importlib.metadata.version("gensim"),
        "text": {"sentences": len(sentences), "words": words, "vocabulary": len(corpus.words)},
        "rows": rows,
        "climb": climb,
        "targets": _targets(rows, p),
    }


def _gensim(sentences: list, corpus: skipgram.Corpus, negative: int, seed: int, p: Parameters):
    from gensim.models import Word2Vec  # here, since it may not be there

    model = Word2Vec(
        sg=1, vector_size=p.vector_size, window=p.window, negative=negative, sample=p.sample,
        min_count=p.min_count, alpha=p.alpha, seed=seed, workers=1,
    )  # fmt: skip
    model.build_vocab(sentences)
    start = time.perf_counter()
    model.train(sentences, total_examples=len(sentences), epochs=p.epochs)
    seconds = time.perf_counter() - start
    if set(model.wv.index_to_key) != set(corpus.words):
        raise RuntimeError("gensim has another vocabulary")
    return seconds, (model.wv.index_to_key, model.wv.vectors)


def _ours(sentences: list, corpus: skipgram.Corpus, negative: int, seed: int, p: Parameters):
    start = time.perf_counter()
    words, rows, _ = skipgram.train(
        corpus, p.vector_size, p.window, negative, p.epochs, sample=p.sample, alpha=p.alpha,
        largest=p.largest, seed=seed, progress=False,
    )  # fmt: skip
    return time.perf_counter() - start, (words, rows)


def _of(rows: Sequence[dict], way: str, negative: int, field: str) -> list[float]:
    return [row[field] for row in rows if (row["way"], row["negative"]) == (way, negative)]


def _fastest(rows: Sequence[dict], way: str, negative: int) -> float:
    return max(_of(rows, way, negative, "words_per_second"))


def _targets(rows: Sequence[dict], p: Parameters) -> list[dict[str, Any]]:
    found = []
    for negative in p.negatives:
        gensim, ours = (_fastest(rows, way, negative) for way in WAYS)
        found.append(target(f"words per second to gensim, negative={negative}", ours / gensim,
                            2.5 if negative == 5 else 4, at_least=True))  # fmt: skip
        for name in ("analogies", "pairs"):
            gensim, ours = (_of(rows, way, negative, f"kept {name}") for way in WAYS)
            # No worse: within two standard errors of the difference of two means over seeds.
            noise = (statistics.variance(gensim) + statistics.variance(ours)) / len(p.seeds)
            found.append(target(
                f"kept {name}, less gensim's, negative={negative}",
                statistics.mean(ours) - statistics.mean(gensim), -2 * short(noise**0.5),
                at_least=True,
            ))  # fmt: skip
    return found


# --- The climb --------------------------------------------------------------------------------


class Tables:
    """The two tables that every step trains, and what it draws negatives from.

    The steps 1 to 3 train on pairs, ids of centres and contexts, (N,) each; 4 and 5 on blocks of
    the stream: ids and sentence (B, C + 2 w) and reach (B, C), as helpers.skipgram has them.
    """

    def __init__(self, rows: Tensor, contexts: Tensor, counts: Tensor, negative: int, rate: float,
                 sample: float = 0, seed: int = 0) -> None:  # fmt: skip
        self.rows, self.contexts, self.negative, self.rate = rows, contexts, negative, rate
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = counts.double() ** 0.75
        self.weights = skipgram.noise_weights(counts, skipgram.kept(counts, sample))
        # The noise as a list of ids to draw from, as word2vec.c has it: faster than multinomial.
        share = self.noise / self.noise.sum() * 1_000_000
        self.urn = torch.repeat_interleave(torch.arange(len(counts)), share.ceil().long())
        self.modules = [nn.Embedding.from_pretrained(table, freeze=False, sparse=True)
                        for table in (rows, contexts)]  # fmt: skip
        self.optimizer = torch.optim.SGD([module.weight for module in self.modules], lr=rate)

    def draw(self, *shape: int) -> Tensor:
        """Ids drawn from the noise distribution."""
        return self.urn[torch.randint(len(self.urn), shape, generator=self.generator)]


def autograd(t: Tables, centre: Tensor, context: Tensor) -> None:
    """1. PyTorch as in its tutorials: nn.Embedding, a loss, backward, step."""
    rows, contexts = t.modules
    u, v, k = rows(centre), contexts(context), contexts(t.draw(len(centre), t.negative))
    found, noise = (u * v).sum(1), (k @ u[:, :, None]).squeeze(2)
    loss = -F.logsigmoid(found).sum() - F.logsigmoid(-noise).sum()
    t.optimizer.zero_grad()
    loss.backward()
    t.optimizer.step()


def by_hand(t: Tables, centre: Tensor, context: Tensor) -> None:
    """2. The same: the gradient of each score is sigmoid - label, and rows are added in place."""
    ids = torch.cat([context[:, None], t.draw(len(centre), t.negative)], dim=1)
    u, v = t.rows[centre], t.contexts[ids]
    error = (v @ u[:, :, None]).squeeze(2).sigmoid_()
    error[:, 0] -= 1
    t.rows.index_add_(0, centre, (error[:, None] @ v).squeeze(1), alpha=-t.rate)
    moves = (error[:, :, None] * u[:, None]).flatten(0, 1)
    t.contexts.index_add_(0, ids.flatten(), moves, alpha=-t.rate)


def shared(t: Tables, centre: Tensor, context: Tensor) -> None:
    """3. 64 negatives for all pairs, each as negative / 64 of one: their scores are a product."""
    noise = t.draw(64)
    u, v, k = t.rows[centre], t.contexts[context], t.contexts[noise]
    positive = (u * v).sum(1, keepdim=True).sigmoid_() - 1
    negative = (u @ k.T).sigmoid_() * (t.negative / 64)
    t.rows.index_add_(0, centre, positive * v + negative @ k, alpha=-t.rate)
    t.contexts.index_add_(0, context, positive * u, alpha=-t.rate)
    t.contexts.index_add_(0, noise, negative.T @ u, alpha=-t.rate)


def blocks(t: Tables, ids: Tensor, sentence: Tensor, reach: Tensor) -> None:
    """4. A word's row is fetched once for all its pairs: their scores are a product too."""
    C = reach.shape[1]
    w = (ids.shape[1] - C) // 2
    inner, noise = slice(w, w + C), t.draw(256)
    u, v, k = t.rows[ids[:, inner]], t.contexts[ids], t.contexts[noise]
    away = (torch.arange(-w, C + w) - torch.arange(C)[:, None]).abs()  # (C, C + 2 w)
    near = (away <= reach[..., None]) & (away > 0) & (sentence[:, inner, None] == sentence[:, None])
    positive = near * ((u @ v.mT).sigmoid_() - 1)
    negative = (u @ k.T).sigmoid_() * near.sum(2, keepdim=True) * (t.negative / 256)
    of_rows = positive @ v + negative @ k
    t.rows.index_add_(0, ids[:, inner].flatten(), of_rows.flatten(0, 1), alpha=-t.rate)
    t.contexts.index_add_(0, ids.flatten(), (positive.mT @ u).flatten(0, 1), alpha=-t.rate)
    t.contexts.index_add_(0, noise, negative.flatten(0, 1).T @ u.flatten(0, 1), alpha=-t.rate)


def weighted(t: Tables, ids: Tensor, sentence: Tensor, reach: Tensor) -> None:
    """5. The other words of the block are the negatives: helpers.skipgram."""
    inner = slice((ids.shape[1] - reach.shape[1]) // 2, None)
    centres = ids[:, inner][:, : reach.shape[1]]
    gradients = skipgram.gradients(t.rows[centres], t.contexts[ids], sentence, reach,
                                   t.weights[ids], t.negative)  # fmt: skip
    for table, index, gradient in zip((t.rows, t.contexts), (centres, ids), gradients, strict=True):
        index = index.flatten()[:, None].expand(-1, table.shape[1])
        table.scatter_add_(0, index, gradient.flatten(0, 1).mul_(-t.rate))


PAIRWISE: dict[str, tuple[Callable[..., None], int]] = {  # and how many pairs at once
    "autograd": (autograd, 1024),
    "by hand": (by_hand, 1024),
    "shared negatives": (shared, 4096),
}
BLOCKWISE: dict[str, Callable[..., None]] = {
    "blocks": blocks,
    "weighted negatives": weighted,
}


def pairs(ids: Tensor, sentence: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of centre and context in blocks, shuffled."""
    C = reach.shape[1]
    w = (ids.shape[1] - C) // 2
    centres, contexts = [], []
    for offset in (*range(-w, 0), *range(1, w + 1)):
        other = slice(w + offset, w + offset + C)
        near = (reach >= abs(offset)) & (sentence[:, w : w + C] == sentence[:, other])
        centres.append(ids[:, w : w + C][near])
        contexts.append(ids[:, other][near])
    centre, context = torch.cat(centres), torch.cat(contexts)
    order = torch.randperm(len(centre), generator=torch.Generator().manual_seed(0))
    return centre[order], context[order]


def _climb(
    sentences: list, corpus: skipgram.Corpus, p: Parameters
) -> dict[tuple[str, int], tuple[float, int]]:
    """For each step and number of negatives, the shortest seconds on the slice, and its words."""
    lengths = corpus.lengths[corpus.lengths.cumsum(0) <= p.slice_words]
    part = corpus._replace(lengths=lengths, ids=corpus.ids[: lengths.sum()])
    words = sum(map(len, sentences[: len(lengths)]))
    keep = skipgram.kept(corpus.counts, p.sample).float()
    D, found = p.vector_size, {}
    for _ in range(p.rounds):
        for negative in p.negatives:
            for name in (*PAIRWISE, *BLOCKWISE):
                generator = torch.Generator().manual_seed(0)
                rows = (torch.rand(len(corpus.words), D, generator=generator) - 0.5) / D
                tables = Tables(rows, torch.zeros_like(rows), corpus.counts, negative, p.alpha,
                                p.sample)  # fmt: skip
                start = time.perf_counter()
                for _ in _run(name, tables, part, keep, p.window, generator):
                    pass
                seconds = time.perf_counter() - start
                found[name, negative] = (
                    min(seconds, found.get((name, negative), (seconds, 0))[0]), words
                )  # fmt: skip
    return found


def _run(name: str, tables: Tables, part: skipgram.Corpus, keep: Tensor, window: int,
         generator: torch.Generator) -> Iterator[None]:  # fmt: skip
    """An epoch of a step of the climb over a corpus."""
    stream = skipgram.blocks(part, keep, window, generator)
    for _, ids, sentence, reach in stream:
        if name in BLOCKWISE:
            BLOCKWISE[name](tables, ids, sentence, reach)
            yield
            continue
        step, size = PAIRWISE[name]
        centre, context = pairs(ids, sentence, reach)
        for start in range(0, len(centre), size):
            step(tables, centre[start : start + size], context[start : start + size])
            yield


def _climb_row(key: tuple[str, int], p: Parameters, seconds: float, words: int,
               gensim: dict[int, float]) -> dict[str, Any]:  # fmt: skip
    step, negative = key
    per_second = words / seconds
    return {"step": step, "negative": negative, "seconds": short(seconds),
            "words_per_second": round(per_second),
            "to_gensim": short(per_second / gensim[negative])}  # fmt: skip


# --- What is printed --------------------------------------------------------------------------


def report(record: dict[str, Any]) -> list[Block]:
    rows = record["rows"]
    cells = [("negative", "way", "words/s", "to gensim", "kept analogies", "pairs",
              "choosing analogies", "pairs")]  # fmt: skip
    for negative in record["parameters"]["negatives"]:
        for way in WAYS:
            ratio = _fastest(rows, way, negative) / _fastest(rows, "gensim", negative)
            scores = []
            for part in ("kept", "choosing"):
                for name in ("analogies", "pairs"):
                    found = _of(rows, way, negative, f"{part} {name}")
                    scores.append(f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}")
            cells.append((str(negative), way, f"{_fastest(rows, way, negative):,}", f"{ratio:.2f}",
                          *scores))  # fmt: skip
    size, p = record["text"], record["parameters"]
    first = (f"Skip-gram on {size['words']:,} words of documentation, a vocabulary of "
             f"{size['vocabulary']:,}, {p['epochs']} epochs, {p['vector_size']} dimensions. Words "
             f"of the text a second, the fastest of {len(p['seeds'])} seeds; scores as mean ± "
             "standard deviation over seeds:")  # fmt: skip
    steps = list(dict.fromkeys(row["step"] for row in record["climb"]))
    climb = [("step", *(f"negative={negative}" for negative in p["negatives"]))]
    for step in steps:
        climb.append((step, *(f"{row['to_gensim']:.2f}" for row in record["climb"]
                              if row["step"] == step)))  # fmt: skip
    return [(first, cells), ("The climb, words per second to gensim's:", climb),
            targets(record["targets"])]  # fmt: skip
