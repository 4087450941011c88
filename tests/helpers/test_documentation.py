"""helpers.documentation reads the frozen files of data/; test_data.py says what is in them."""

import lzma

import numpy as np
import pytest

from helpers import documentation
from helpers.documentation import Bags


@pytest.fixture
def bags():
    """Three bags: 0 1 2 held out, 3 4, and 0 5 held out."""
    return Bags(
        ids=np.array([0, 1, 2, 3, 4, 0, 5]),
        offsets=np.array([0, 3, 5, 7]),
        label=np.array([1, 0, 0]),
        test=np.array([True, False, True]),
        labels=["one", "two"],
    )


@pytest.mark.parametrize("read", ["sentences", "vocabulary", "bags"])
def test_read_from_any_folder(
    read, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert len(getattr(documentation, read)()) > 0
    with pytest.raises(FileNotFoundError, match="docs_.* is not there. Build it with: make data"):
        getattr(documentation, read)(tmp_path)


def test_a_line_is_a_sentence_and_a_space_parts_words(tmp_path):
    with lzma.open(tmp_path / "docs_sentences.txt.xz", "wb") as file:
        file.write(b"the first one\nit doesn't end\n")
    assert documentation.sentences(tmp_path) == [["the", "first", "one"], ["it", "doesn't", "end"]]


def test_the_vocabulary_gives_words_and_counts(tmp_path):
    (tmp_path / "docs_vocabulary.csv").write_text("word,count\nthe,12\nrow,7\n")
    assert documentation.vocabulary(tmp_path) == (["the", "row"], [12, 7])


def test_numbers_of_bags_are_int64(tmp_path, bags):
    np.savez(
        tmp_path / "docs_bags.npz",
        ids=bags.ids.astype(np.uint16),
        offsets=bags.offsets.astype(np.int32),
        label=bags.label.astype(np.uint8),
        test=bags.test,
        labels=np.array(bags.labels),
    )
    read = documentation.bags(tmp_path)
    for name in ("ids", "offsets", "label", "test"):
        assert getattr(read, name).tolist() == getattr(bags, name).tolist()
    assert read.ids.dtype == read.offsets.dtype == read.label.dtype == np.int64
    assert read.test.dtype == bool and read.labels == ["one", "two"]


def test_bags_are_a_sequence(bags):
    assert len(bags) == 3
    assert [bag.tolist() for bag in bags] == [[0, 1, 2], [3, 4], [0, 5]]
    assert bags[-1].tolist() == [0, 5]
    for i in (3, -4):
        with pytest.raises(IndexError):
            bags[i]


def test_a_part_has_its_bags_whole(bags):
    held_out, others = bags.part(test=True), bags.part(test=False)
    assert [bag.tolist() for bag in held_out] == [[0, 1, 2], [0, 5]]
    assert held_out.label.tolist() == [1, 0] and held_out.test.all()
    assert [bag.tolist() for bag in others] == [[3, 4]] and others.labels == bags.labels
