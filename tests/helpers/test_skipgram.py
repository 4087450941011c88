"""helpers.skipgram against slow code that is right by its looks, and against negative sampling."""

import ast
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import skipgram

# --- A block ----------------------------------------------------------------------------------


def slow_loss(
    u: Tensor, v: Tensor, sentence: Tensor, reach: Tensor, weights: Tensor, negative: float
) -> Tensor:
    """The loss of blocks, a score at a time."""
    (B, C, _), W = u.shape, v.shape[1]
    w = (W - C) // 2
    loss = torch.zeros((), dtype=u.dtype)
    for b in range(B):
        for i in range(C):
            here = i + w
            same = [j for j in range(W) if sentence[b, j] == sentence[b, here]]
            positives = [j for j in same if 0 < abs(j - here) <= reach[b, i]]
            negatives = [j for j in range(W) if j not in same]
            for j in positives:
                loss = loss - F.logsigmoid(u[b, i] @ v[b, j])
            for j in negatives:
                share = negative * len(positives) / len(negatives)
                loss = loss - share * weights[b, j] * F.logsigmoid(-u[b, i] @ v[b, j])
    return loss


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("w", [1, 2, 5])
def test_the_gradients_of_a_block_are_autograds_of_the_slow_loss(seed: int, w: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    B, C, D = 3, 9, 4
    W = C + 2 * w
    u, v = (torch.randn(B, n, D, dtype=torch.float64, generator=generator, requires_grad=True)
            for n in (C, W))  # fmt: skip
    # Sentences of 1 to about 8 words; the first block is one sentence and has no negatives.
    sentence = (torch.rand(B, W, generator=generator) < 0.3).cumsum(1).double()
    sentence[0] = 0
    reach = torch.randint(0, w + 1, (B, C), generator=generator).double()
    weights = torch.rand(B, W, dtype=torch.float64, generator=generator)
    expected = torch.autograd.grad(slow_loss(u, v, sentence, reach, weights, 3), (u, v))
    found = skipgram.gradients(u.detach(), v.detach(), sentence, reach, weights, 3)
    assert all(gradient.count_nonzero() > D for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


# --- The stream -------------------------------------------------------------------------------


def corpus_of(lengths: list[int]) -> skipgram.Corpus:
    """Sentences in which no word occurs twice, so that an id tells its place."""
    names, words = iter(range(sum(lengths))), []
    for length in lengths:
        words.append([f"{next(names):06}" for _ in range(length)])
    return skipgram.read(words, min_count=1)


def pairs_of(corpus: skipgram.Corpus, window: int, seed: int) -> Counter:
    """How often an epoch of blocks has each word as the centre of each other, by ids."""
    found = Counter()
    generator, keep = torch.Generator().manual_seed(seed), torch.ones(len(corpus.words))
    for _, ids, sentence, reach in skipgram.blocks(corpus, keep, window, generator):
        centre = torch.arange(window, window + reach.shape[1])
        apart = (torch.arange(ids.shape[1]) - centre[:, None]).abs()
        near = (apart > 0) & (apart <= reach[:, :, None])
        b, i, j = (near & (sentence[:, None] == sentence[:, centre, None])).nonzero().T
        found.update(zip(ids[b, centre[i]].tolist(), ids[b, j].tolist(), strict=True))
    return found


@pytest.mark.parametrize("lengths", [[2], [1, 1, 3], [40, 1, 90, 2] * 3, [7] * 60, [48] * 4])
def test_at_window_1_the_pairs_are_the_neighbours_each_once(lengths: list[int]) -> None:
    corpus, expected, start = corpus_of(lengths), Counter(), 0
    for length in lengths:
        for i in range(start, start + length - 1):
            expected[i, i + 1] = expected[i + 1, i] = 1
        start += length
    for seed in range(3):
        assert pairs_of(corpus, 1, seed) == expected


def test_windows_are_drawn_as_word2vec_draws_them() -> None:
    corpus, window = corpus_of([12] * 120), 4
    sentence = torch.repeat_interleave(torch.arange(120), 12)
    at, seeds = Counter(), 6
    for seed in range(seeds):
        for (i, j), count in pairs_of(corpus, window, seed).items():
            assert count == 1 and sentence[i] == sentence[j]
            at[abs(i - j)] += 1
    assert set(at) == {1, 2, 3, 4}
    for d in at:
        share = at[d] / (seeds * 120 * 2 * (12 - d))
        assert share == pytest.approx((window + 1 - d) / window, abs=0.03)


def test_every_word_is_a_centre_once_an_epoch_and_epochs_differ() -> None:
    corpus, orders = corpus_of([3, 30, 8, 1, 100, 5] * 20), []
    generator, keep = torch.Generator().manual_seed(0), torch.ones(len(corpus.words))
    for _ in range(2):
        centres, done = [], []
        for share, ids, _, reach in skipgram.blocks(corpus, keep, 5, generator):
            centres += ids[:, 5:-5][reach > 0].tolist()
            done.append(share)
            assert ids.shape[1] == reach.shape[1] + 10
        assert sorted(centres) == list(range(len(corpus.words)))
        assert done[0] == 0 and done == sorted(done) and done[-1] < 1
        orders.append(centres)
    assert orders[0] != orders[1]


# --- Subsampling and noise --------------------------------------------------------------------


def zipfian(sentences: int, seed: int = 0, V: int = 40, length: int = 8) -> list[list[str]]:
    draw = random.Random(seed)
    words, weights = [f"w{i:02}" for i in range(V)], [1 / (i + 1) for i in range(V)]
    return [draw.choices(words, weights, k=length) for _ in range(sentences)]


def test_subsampling_keeps_what_the_formula_says() -> None:
    corpus = skipgram.read(zipfian(3_000))
    keep = skipgram.kept(corpus.counts, 0.01)
    share = corpus.counts[0].item() / corpus.counts.sum().item()
    assert keep[0].item() == pytest.approx(math.sqrt(0.01 / share) + 0.01 / share)
    assert keep[-1] == 1 and keep[0] < 0.5
    assert skipgram.kept(corpus.counts, 0).eq(1).all()
    generator, seen = torch.Generator().manual_seed(0), torch.zeros(len(corpus.words))
    for _, ids, _, reach in skipgram.blocks(corpus, keep.float(), 5, generator):
        seen += ids[:, 5:-5][reach > 0].bincount(minlength=len(seen))
    torch.testing.assert_close(seen[:5] / corpus.counts[:5], keep[:5].float(), rtol=0, atol=0.03)


def test_vocabulary_and_subsampling_are_gensims() -> None:
    models = pytest.importorskip("gensim.models")
    sentences = zipfian(500)
    sentences.append(["seldom"] * 4)
    corpus = skipgram.read(sentences)
    model = models.Word2Vec(vector_size=4, sample=0.01, min_count=5, workers=1)
    model.build_vocab(sentences)
    assert set(model.wv.index_to_key) == set(corpus.words)
    for word, count, keep in zip(
        corpus.words, corpus.counts.tolist(), skipgram.kept(corpus.counts, 0.01), strict=True
    ):
        assert model.wv.get_vecattr(word, "count") == count
        theirs = model.wv.get_vecattr(word, "sample_int") / (2**32 - 1)
        assert keep.item() == pytest.approx(theirs, abs=1e-6)


def test_weights_turn_the_stream_into_the_noise() -> None:
    counts = torch.tensor([1000, 100, 10, 5])
    keep = skipgram.kept(counts, 0.05)
    stream = counts * keep / (counts * keep).sum()
    noise = counts.double() ** 0.75
    weighted = stream * skipgram.noise_weights(counts, keep)
    torch.testing.assert_close(weighted, noise / noise.sum(), rtol=1e-5, atol=0)


def test_the_expected_gradient_is_that_of_negative_sampling() -> None:
    """Summed over epochs of blocks, against sums over all pairs and the whole noise."""
    negative, window, D, epochs = 3, 2, 3, 60
    corpus = skipgram.read(zipfian(400, V=12, length=5), min_count=1)
    V, ones = len(corpus.words), torch.ones(len(corpus.words))
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(V, D, dtype=torch.float64, generator=generator) for _ in range(2))

    of_pair = torch.zeros(V, V, dtype=torch.float64)  # how often to expect each, in an epoch
    for sentence in corpus.ids.split(corpus.lengths.tolist()):
        for i, centre in enumerate(sentence.tolist()):
            for j, context in enumerate(sentence.tolist()):
                if 0 < abs(i - j) <= window:
                    of_pair[centre, context] += (window + 1 - abs(i - j)) / window
    noise = corpus.counts.double() ** 0.75
    of_noise = negative * of_pair.sum(1, keepdim=True) * (noise / noise.sum())
    found = torch.sigmoid(u @ v.T)
    error = of_pair * (found - 1) + of_noise * found
    expected = error @ v, error.T @ u

    weights, sums = skipgram.noise_weights(corpus.counts, ones), [torch.zeros_like(u) for _ in "uv"]
    for _ in range(epochs):
        for _, ids, sentence, reach in skipgram.blocks(corpus, ones, window, generator):
            centres = ids[:, window:-window]
            given = u[centres], v[ids], sentence.double(), reach.double(), weights[ids].double()
            for total, index, gradient in zip(
                sums, (centres, ids), skipgram.gradients(*given, negative), strict=True
            ):
                total.index_add_(0, index.flatten(), gradient.flatten(0, 1) / epochs)
    for one, other in zip(sums, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
    # The weights matter for this: the stream's own distribution is another.
    plain = corpus.counts / corpus.counts.sum()
    unweighted = of_pair * (found - 1) + negative * of_pair.sum(1, keepdim=True) * plain * found
    assert (unweighted @ v - expected[0]).norm() > 0.08 * expected[0].norm()


# --- Training ---------------------------------------------------------------------------------


def two_topics(sentences: int = 600) -> list[list[str]]:
    draw = random.Random(0)
    topics = [[f"{topic}{i}" for i in range(8)] for topic in "ab"]
    return [draw.choices(topics[i % 2], k=6) for i in range(sentences)]


def test_it_learns_which_words_belong_together() -> None:
    words, rows, contexts = skipgram.train(two_topics(), 8, epochs=80, sample=0, alpha=0.1)
    assert rows.shape == contexts.shape == (16, 8) and rows.dtype == torch.float32
    unit = F.normalize(rows, dim=1)
    cosine = unit @ unit.T
    same = torch.tensor([[one[0] == other[0] for other in words] for one in words])
    assert cosine[same].min() > cosine[~same].max() + 0.3


def test_sentences_and_a_corpus_are_the_same_and_seeds_count() -> None:
    sentences = two_topics(200)
    state = torch.get_rng_state()
    runs = [skipgram.train(given, 8, epochs=2, seed=seed, progress=False)
            for given, seed in ((sentences, 3), (skipgram.read(sentences), 3), (sentences, 4),
                                (iter(sentences), 3))]  # fmt: skip
    assert torch.get_rng_state().equal(state)
    assert runs[0].rows.equal(runs[1].rows) and runs[0].contexts.equal(runs[1].contexts)
    assert runs[0].rows.equal(runs[3].rows)
    assert not runs[0].rows.allclose(runs[2].rows, atol=1e-3)


def test_threads_change_nothing_that_counts() -> None:
    before, rows = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rows.append(skipgram.train(zipfian(2_000), 20, epochs=1, progress=False).rows)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*rows, rtol=0, atol=1e-4)


def test_a_high_rate_stays_finite_because_moves_are_limited() -> None:
    given = dict(vector_size=8, epochs=10, alpha=50.0, sample=0, progress=False)
    assert skipgram.train(two_topics(), **given).rows.isfinite().all()
    assert not skipgram.train(two_topics(), largest=math.inf, **given).rows.abs().max() < 1e3


def test_it_tells_how_far_it_is() -> None:
    told = []
    corpus = skipgram.read(zipfian(20_000))
    rows = skipgram.train(corpus, 4, epochs=2, progress=False,
                          callback=lambda *now: told.append((now[0], now[1].clone()))).rows
    shares = [share for share, _ in told]
    assert shares[0] == 0 and shares[-1] == 1 and len(shares) == len(set(shares)) > 50
    assert shares == sorted(shares)
    assert told[0][1].abs().max() <= 0.5 / 4 and told[-1][1].equal(rows)
    assert not told[10][1].equal(told[11][1])


def test_a_bar_is_shown_when_asked_for_and_never_in_ci(monkeypatch, capsys) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setenv("CI", "1")
    skipgram.train(two_topics(20), 4, epochs=1, progress=True)
    assert not capsys.readouterr().err
    monkeypatch.delenv("CI")
    skipgram.train(two_topics(20), 4, epochs=1, progress=True)
    assert "skip-gram: 100%" in capsys.readouterr().err


# --- Small and odd texts ----------------------------------------------------------------------


@pytest.mark.parametrize("sentences", [
    [["a", "b"]], [["a"]], [["a"], [], ["b", "a"]], [["a"] * 200], [("a", "b", "c")] * 3,
    [["a", "b"] * 100, ["c"]],
])  # fmt: skip
@pytest.mark.parametrize("window", [1, 5, 30])
def test_small_texts_train(sentences: list, window: int) -> None:
    words, rows, contexts = skipgram.train(sentences, 4, window, epochs=2, min_count=1, sample=0)
    assert len(words) == len(rows) == len({word for s in sentences for word in s})
    assert rows.isfinite().all() and contexts.isfinite().all()


def test_a_vocabulary_is_in_order_of_frequency() -> None:
    corpus = skipgram.read([["b", "x", "a"], [], ["a", "b", "c"], ["c", "c"]], min_count=2)
    assert corpus.words == ["c", "a", "b"] and corpus.counts.tolist() == [3, 2, 2]
    assert corpus.ids.tolist() == [2, 1, 1, 2, 0, 0, 0] and corpus.lengths.tolist() == [2, 0, 3, 2]


TEXT = [["a", "b", "c"]] * 10


@pytest.mark.parametrize(("given", "error", "told"), [
    (dict(sentences=[]), ValueError, "no word in sentences"),
    (dict(sentences=[[], []]), ValueError, "no word in sentences"),
    (dict(sentences="a b c"), TypeError, "sentences is a string, 'a b c'"),
    (dict(sentences=[["a"], "b c"]), TypeError, "sentence 1 is a string, 'b c'.*'b', 'c'"),
    (dict(min_count=11), ValueError, "min_count=11 times; the most frequent, 'a', occurs 10"),
    (dict(min_count=0), ValueError, "min_count is 0: pass 1 or more"),
    (dict(negative=0), ValueError, "negative is 0"),
    (dict(negative=-5), ValueError, "negative is -5"),
    (dict(negative=2.5), TypeError, "negative is 2.5: pass an integer"),
    (dict(window=0), ValueError, "window is 0"),
    (dict(vector_size=0), ValueError, "vector_size is 0"),
    (dict(vector_size=True), TypeError, "vector_size is True"),
    (dict(epochs=0), ValueError, "epochs is 0"),
    (dict(sample=-1), ValueError, "sample is -1"),
    (dict(sample=math.nan), ValueError, "sample is nan"),
    (dict(alpha=math.nan), ValueError, "alpha=nan"),
    (dict(alpha=math.inf), ValueError, "alpha=inf"),
    (dict(alpha=0.01, min_alpha=0.02), ValueError, "alpha=0.01 to min_alpha=0.02"),
    (dict(largest=0), ValueError, "largest is 0"),
    (dict(largest=math.nan), ValueError, "largest is nan"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused(given: dict, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        skipgram.train(**{"sentences": TEXT, "vector_size": 4, **given})


def test_the_module_needs_pytorch_alone() -> None:
    tree = ast.parse(Path(skipgram.__file__).read_text("utf-8"))
    names = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {
        "__future__", "collections", "contextlib", "itertools", "math", "os", "torch", "typing"
    }  # fmt: skip
