"""helpers.analogies: good questions, and a score that only good vectors get."""

from collections import Counter

import numpy as np
import pytest
import torch

import helpers.analogies
from helpers import documentation
from helpers.analogies import PARTS, analogies, pairs, score


@pytest.fixture(scope="module")
def words():
    """Every word of a question, and a hundred others."""
    asked = {word for q in analogies() for word in q[2:6]} | {w for p in pairs() for w in p[1:3]}
    return [*sorted(asked), *(f"other{i}" for i in range(100))]


@pytest.fixture
def random_rows(words):
    return np.random.default_rng(0).normal(size=(len(words), 50)).astype(np.float32)


# --- The questions


def test_there_are_enough_and_half_of_them_are_kept():
    assert len(analogies()) >= 150 and len(pairs()) >= 100
    for ask in (analogies, pairs):
        for topic in {q.topic for q in ask()}:
            sizes = [sum(q.topic == topic for q in ask(part)) for part in PARTS]
            assert min(sizes) >= 15 and max(sizes) <= 1.15 * min(sizes), (topic, sizes)
        assert len(ask(PARTS[0])) + len(ask(PARTS[1])) == len(ask())
    topics = {"grammar", "mathematics", "types", "directions", "plotting", "systems"}
    assert {q.topic for q in analogies()} == {q.topic for q in pairs()} == topics


def word_pairs(part):
    found = {frozenset(two) for q in analogies(part) for two in ((q.a, q.b), (q.c, q.d))}
    return found | {frozenset((pair.a, pair.b)) for pair in pairs(part)}


def test_no_pair_of_words_stands_in_both_halves():
    assert len(word_pairs("choosing")) > 200
    assert word_pairs("choosing").isdisjoint(word_pairs("kept"))


def test_each_question_is_well_posed():
    for question in analogies():
        assert len(set(question[2:6])) == 4, question
    answers = {}
    for q in analogies():  # one right answer: a relation gives a word one partner
        for word, partner in ((q.a, q.b), (q.c, q.d)):
            assert answers.setdefault((q.topic, q.relation, word), partner) == partner, q
    asked = Counter(tuple(q[2:6]) for q in analogies())
    related = Counter(frozenset((pair.a, pair.b)) for pair in pairs())
    assert max(asked.values()) == max(related.values()) == 1
    assert all(pair.a != pair.b for pair in pairs())


def test_every_word_is_in_the_vocabulary():
    known = set(documentation.vocabulary()[0])
    assert {word for q in analogies() for word in q[2:6]} <= known
    assert {word for pair in pairs() for word in (pair.a, pair.b)} <= known


def test_an_unknown_part_is_refused(words, random_rows):
    for ask in (analogies, pairs, lambda part: score(words, random_rows, part)):
        with pytest.raises(ValueError, match="'test'.*'choosing', 'kept'"):
            ask("test")


# --- The score


def by_definition(words, rows, part, exclude=True):
    """The same score in a few slow lines: every cosine, sorted."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    row = dict(zip(words, rows, strict=True))

    def nearest(direction, left_out):
        order = np.argsort(-(rows @ direction))
        return [words[i] for i in order if words[i] not in left_out]

    right = [
        nearest(row[q.b] - row[q.a] + row[q.c], q[2:5] if exclude else ())[0] == q.d
        for q in analogies(part)
    ]
    near = [
        [p.b in nearest(row[p.a], [p.a])[:10], p.a in nearest(row[p.b], [p.b])[:10]]
        for p in pairs(part)
    ]
    return right, near


def good(words, random_rows):
    """Rows that answer much: b - a is one step for each relation, and mates lie close."""
    generator = np.random.default_rng(1)
    row = dict(zip(words, random_rows.astype(np.float64), strict=True))
    step = {}
    for q in analogies():
        way = step.setdefault((q.topic, q.relation), generator.normal(size=50))
        row[q.b], row[q.d] = row[q.a] + way, row[q.c] + way
    for pair in pairs():
        row[pair.b] = row[pair.a] + 0.1 * generator.normal(size=50)
    return np.array([row[word] for word in words])


@pytest.mark.parametrize("chunk", [1 << 14, 7])
@pytest.mark.parametrize("exclude", [True, False])
def test_the_score_is_that_of_the_definition(words, random_rows, chunk, exclude, monkeypatch):
    monkeypatch.setattr(helpers.analogies, "_CHUNK", chunk)
    rows = good(words, random_rows)
    for part in PARTS:
        got = score(words, rows, part, exclude)
        right, near = by_definition(words, rows, part, exclude)
        assert got.right.tolist() == right and got.near.tolist() == near
        assert got.pairs > 0.2 and (got.analogies > 0.2 or not exclude)
        assert got.asked.all() and got.missing == 0
        assert got.analogies == np.mean(right) and got.pairs == np.mean(near)


def test_length_and_kind_of_rows_do_not_matter(words, random_rows):
    rows = good(words, random_rows).astype(np.float32)
    wanted = score(words, rows)
    scaled = rows * np.geomspace(0.01, 100, len(rows), dtype=np.float32)[:, None]
    table = torch.nn.Embedding.from_pretrained(torch.from_numpy(rows), freeze=False)
    for other in (scaled, table.weight, rows.astype(np.float64)):
        assert score(words, other).right.tolist() == wanted.right.tolist()
        assert score(words, other).near.tolist() == wanted.near.tolist()
    assert score(words, table.weight.bfloat16()).pairs > 0.2


@pytest.mark.parametrize("kind", ["random", "ones", "one direction"])
def test_rows_that_know_nothing_score_nothing(words, random_rows, kind):
    rows = {
        "random": random_rows,
        "ones": np.ones_like(random_rows),
        "one direction": random_rows[:1] * np.arange(1, len(words) + 1)[:, None],
    }[kind]
    got = score(words, rows, None)
    assert got.analogies < 0.02 and got.pairs < 0.04
    if kind != "random":  # all cosines are one: nobody wins a tie
        assert not got.right.any() and not got.near.any()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_rows_that_are_not_finite_are_refused(words, random_rows, odd, everywhere):
    random_rows[slice(None) if everywhere else 3, 7] = odd
    with pytest.raises(ValueError, match=f"'{words[0 if everywhere else 3]}' is not finite"):
        score(words, random_rows)


def test_a_word_without_a_row_makes_its_questions_wrong(words, random_rows):
    rows = good(words, random_rows)
    whole = score(words, rows)
    question = int(np.flatnonzero(whole.right)[0])
    gone = analogies("kept")[question].d
    i = words.index(gone)
    zeroed = rows.copy()
    zeroed[i] = 0
    fewer = score([*words[:i], *words[i + 1 :]], np.delete(rows, i, axis=0))
    for got in (fewer, score(words, zeroed)):  # a row of zeros has no direction: the same as none
        assert whole.right[question] and not got.right[question] and not got.asked[question]
        told = [gone in q[2:6] for q in analogies("kept")] + [gone in p[1:3] for p in pairs("kept")]
        assert got.asked.tolist() == [not has for has in told] and got.missing == sum(told)
        assert got.right.size == whole.right.size and got.near.shape == whole.near.shape
    assert "questions have a word without a row" in str(fewer) and "row" not in str(whole)
    nothing = score(["one", "two"], np.eye(2))
    assert nothing.analogies == nothing.pairs == 0 and not nothing.asked.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda words, rows: (words, rows[:-1]), r"shape \(\d+, 50\) for \d+ words"),
        (lambda words, rows: (words, rows[0]), r"shape \(50,\)"),
        (lambda words, rows: ([words[1], *words[1:]], rows), "more than once"),
    ],
)
def test_words_and_rows_must_fit(words, random_rows, change, said):
    with pytest.raises(ValueError, match=said):
        score(*change(words, random_rows))
