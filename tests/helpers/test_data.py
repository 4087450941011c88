"""The frozen files in data/: what data/README.md says of them is so.

Nothing here builds them anew, since other versions of the libraries give other files.
"""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from helpers import analogies, answering, documentation, word2vec
from tools.corpus import build
from tools.corpus import vectors as training
from tools.corpus.docstrings import LIBRARIES

DATA = documentation.DATA
README = (DATA / "README.md").read_text(encoding="utf-8")
CHECKSUMS = re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", README, re.MULTILINE)
OWN_NAMES = "torch pytorch numpy np scipy matplotlib mpl plt pyplot sympy networkx nx python"


@pytest.fixture(scope="module")
def sentences():
    return documentation.sentences()


@pytest.fixture(scope="module")
def vocabulary():
    return documentation.vocabulary()


@pytest.fixture(scope="module")
def bags():
    return documentation.bags()


@pytest.fixture(scope="module")
def vectors():
    return word2vec.load(DATA / training.NAME)


def test_the_readme_lists_the_built_files():
    assert {name for name, _ in CHECKSUMS} == {*build.NAMES, training.NAME, answering.NAME}
    assert re.search(r"^Built on \d{4}-\d\d-\d\d from torch \S+, numpy \S+, ", README, re.MULTILINE)


@pytest.mark.parametrize(("name", "checksum"), CHECKSUMS)
def test_each_checksum_is_the_files(name, checksum):
    assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == checksum


def test_the_files_are_small():
    assert (DATA / "docs_sentences.txt.xz").stat().st_size < 3_000_000
    assert (DATA / "docs_bags.npz").stat().st_size < 1_000_000
    assert (DATA / "docs_word2vec.bin").stat().st_size < 5_000_000
    assert (DATA / "docs_vocabulary.csv").stat().st_size < 250_000
    assert (DATA / "scenes_seen.npz").stat().st_size < 4_000_000


# --- Sentences, vocabulary and bags


def test_the_sentences_are_as_many_as_the_readme_says(sentences):
    words = sum(map(len, sentences))
    assert f"{len(sentences):,} sentences of {words:,} words, UTF-8" in README
    assert min(map(len, sentences)) == 3


def test_the_sentences_words_are_words(sentences):
    used = {word for words in sentences for word in words}
    assert [w for w in used if not re.fullmatch(r"[a-z][a-z0-9]*|[a-z]+n't|[1-9n]d", w)] == []


def test_the_sentences_give_the_vocabulary(sentences, vocabulary):
    counts = Counter(word for words in sentences for word in words)
    assert {word: n for word, n in counts.items() if n >= 5} == dict(zip(*vocabulary, strict=True))


def test_each_bag_is_that_of_a_sentence(sentences, vocabulary, bags):
    id_of = build._ids(vocabulary[0])
    found = {build._bag(words, id_of) for words in sentences}
    assert {tuple(bag.tolist()) for bag in bags} <= found


def test_every_library_has_its_licence():
    texts = (DATA / "docs_sentences.licences.txt").read_text(encoding="utf-8")
    headings = re.findall(r"^=+\n(\w+).*\n=+\n\n", texts, re.MULTILINE)
    assert tuple(headings) == LIBRARIES
    assert texts.count("Redistribution and use in source and binary forms") >= 5  # of BSD
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in texts


def test_the_vocabulary_is_ordered_and_its_words_are_words(vocabulary):
    words, counts = vocabulary
    assert 10_000 <= len(words) <= 16_000
    assert len(set(words)) == len(words) == len(counts)
    assert [*zip(words, counts, strict=True)] == sorted(
        zip(words, counts, strict=True), key=lambda item: (-item[1], item[0])
    )
    assert min(counts) >= 5
    odd = [w for w in words if not re.fullmatch(r"[a-z][a-z0-9]*|[a-z]+n't|[1-9]d", w)]
    assert odd == []
    raw = (DATA / "docs_vocabulary.csv").read_bytes()
    assert raw.startswith(b"word,count\n") and raw.endswith(b"\n") and b"\r" not in raw


def test_the_words_that_lessons_use_are_there(vocabulary):
    wanted = """row rows column columns float32 float16 bfloat16 float64 int64 sin cos arcsin arccos
    left right red blue green circle triangle square thread embedding gradient sparse dense index
    lookup table matrix vector read reading write writing row word sentence""".split()
    assert set(wanted) <= set(vocabulary[0])


def test_the_arrays_fit_together(vocabulary, bags):
    with np.load(DATA / "docs_bags.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["ids", "label", "labels", "offsets", "test"]
        assert file["labels"].dtype.kind == "U" and file["test"].dtype == bool
    assert bags.labels == [*LIBRARIES]
    assert bags.offsets[0] == 0 and bags.offsets[-1] == len(bags.ids)
    assert len(bags.offsets) == len(bags) + 1 == len(bags.test) + 1
    sizes = np.diff(bags.offsets)
    assert sizes.min() >= 4 and sizes.max() <= 40
    assert bags.ids.min() >= 0 and bags.ids.max() < len(vocabulary[0])


def test_ids_are_sorted_and_distinct_within_a_bag(bags):
    rises = np.diff(bags.ids) > 0
    rises[bags.offsets[1:-1] - 1] = True  # from one bag to the next the ids may fall
    assert rises.all()


def test_classes_are_balanced_on_both_sides(bags):
    for test, size in ((False, 3_600), (True, 900)):
        counts = np.bincount(bags.label[bags.test == test], minlength=len(bags.labels))
        assert counts.tolist() == [size] * len(bags.labels)


def test_no_bag_occurs_twice(bags):
    """So none is on both sides, and none has two labels."""
    assert len({tuple(bag.tolist()) for bag in bags}) == len(bags) == 31_500


def test_the_libraries_own_names_are_in_no_bag(vocabulary, bags):
    words = vocabulary[0]
    used = {words[i] for i in np.unique(bags.ids)}
    assert len(used) > 5_000
    assert used.isdisjoint(OWN_NAMES.split())
    assert [w for w in used if re.search("torch|numpy|matplotlib|sympy|networkx|python", w)] == []


# --- The vectors


# What lessons and scenes ask for. The readme says which the documentation lacks.
COLOURS = "red green blue yellow purple orange black white gray"
SHAPES = "circle square triangle rectangle box ellipse star polygon"
DIRECTIONS = "left right above below top bottom up down near inside"
NUMBERS = "zero one two three four five six seven eight nine ten"
SIZES = "small large big tiny smallest largest"
LACKING = {"yellow", "purple", "orange"}


def test_the_vectors_words_stand_in_order(vocabulary, vectors):
    words, rows = vectors
    has_row = set(words)
    assert words == [word for word in vocabulary[0] if word in has_row]
    assert rows.shape == (len(words), training.SETTINGS["vector_size"])
    assert rows.dtype == np.float32 and np.isfinite(rows).all()
    assert np.linalg.norm(rows, axis=1).min() > 0.1
    assert f"of {len(words):,} words in {rows.shape[1]}\n" in README
    assert f"has no row.** {len(vocabulary[0]) - len(words):,} of" in README


def test_what_is_no_word_has_no_row(vectors):
    odd = {*"bcdefghijklmnopqrstuvwxyz", "x0", "x1", "x2", "arg1", "arg2", "xx", "ii", "iii"}
    assert odd.isdisjoint(vectors[0])
    assert {"a", "float32", "conv2d", "1d", "doesn't", "log2"} <= set(vectors[0])


def test_the_words_that_scenes_use_have_rows(vocabulary, vectors):
    wanted = set(" ".join((COLOURS, SHAPES, DIRECTIONS, NUMBERS, SIZES)).split())
    assert wanted - set(vectors[0]) == LACKING
    assert LACKING.isdisjoint(vocabulary[0])  # so rare that they are not in the vocabulary either
    lacking = re.search(r"all have a row but (\w+), (\w+) and (\w+),", README)
    assert set(lacking.groups()) == LACKING


def test_most_of_a_bag_has_rows(vocabulary, bags, vectors):
    has_row = np.isin(vocabulary[0], vectors[0])
    assert has_row[bags.ids].mean() > 0.95


@pytest.mark.parametrize("part", analogies.PARTS)
def test_the_score_is_the_readmes(part, vectors):
    """A pair of cosines that differ in the last digit may change places on another machine."""
    got = analogies.score(*vectors, part)
    assert got.missing == 0
    told = re.search(
        rf"^- {part}: (\d+) of (\d+) analogies \(\d+%\), (\d+) of (\d+) mates", README, re.MULTILINE
    )
    right, asked, near, mates = map(int, told.groups())
    assert (asked, mates) == (got.right.size, got.near.size)
    assert abs(right - got.right.sum()) <= 1 and abs(near - got.near.sum()) <= 1


def test_the_topics_are_the_readmes(vectors):
    got = analogies.score(*vectors)
    for topic in {question.topic for question in analogies.analogies()}:
        told = re.search(rf"^\| {topic} \| (\d+)% \| (\d+)% \|$", README, re.MULTILINE)
        asked = (analogies.analogies("kept"), analogies.pairs("kept"))
        for percent, marks, ask in zip(told.groups(), (got.right, got.near), asked, strict=True):
            share = marks[[question.topic == topic for question in ask]].mean()
            assert abs(100 * share - int(percent)) < 4


def test_the_readme_counts_the_questions():
    for name, ask in (("analogies", analogies.analogies), ("pairs", analogies.pairs)):
        assert re.search(rf"^\| {name}\.csv \| .* \| {len(ask())} \|$", README, re.MULTILINE)
