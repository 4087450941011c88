"""helpers.word2vec.save: what is saved is loaded, by gensim too."""

import gzip
import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_files import ROWS, WORDS, binary

from helpers import word2vec
from helpers.word2vec import load, save

# --- Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.bin", "a.txt", "a.vec", "a.bin.gz", "a.TXT.GZ"])
def test_what_is_saved_is_loaded(tmp_path, name: str) -> None:
    save(tmp_path / name, WORDS, ROWS)
    words, rows = load(tmp_path / name)
    assert words == WORDS and rows.tobytes() == ROWS.tobytes()  # minus zero too
    assert os.listdir(tmp_path) == [name]


def test_what_is_written(tmp_path) -> None:
    save(tmp_path / "a.bin", WORDS, ROWS)
    assert (tmp_path / "a.bin").read_bytes() == binary()
    save(tmp_path / "a.txt", ["a", "b"], [[0.1, -2], [1e-8, 1e8]])
    assert (tmp_path / "a.txt").read_bytes() == b"2 2\na 0.1 -2.0\nb 1e-08 1e+08\n"
    save(tmp_path / "packed.bin.gz", WORDS, ROWS)
    assert gzip.decompress((tmp_path / "packed.bin.gz").read_bytes()) == binary()
    before = (tmp_path / "packed.bin.gz").read_bytes()
    save(tmp_path / "packed.bin.gz", WORDS, ROWS)
    assert before == (tmp_path / "packed.bin.gz").read_bytes()
    save(tmp_path / "odd", WORDS, ROWS, binary=True)
    assert (tmp_path / "odd").read_bytes() == binary()


def test_rows_may_be_a_tensor_float64_or_whole_numbers(tmp_path) -> None:
    for rows in (torch.from_numpy(ROWS), ROWS.astype(np.float64), ROWS[:, ::-1][:, ::-1],
                 ROWS.astype(">f4"), np.asfortranarray(ROWS)):  # fmt: skip
        save(tmp_path / "a.bin", WORDS, rows)
        assert (tmp_path / "a.bin").read_bytes() == binary()
    save(tmp_path / "a.bin", ["a"], [[1, 2]])
    assert load(tmp_path / "a.bin")[1].tolist() == [[1, 2]]
    with pytest.raises(TypeError, match="detach"):
        save(tmp_path / "a.bin", WORDS, torch.nn.Embedding(4, 3).weight)


@pytest.mark.parametrize(
    ("words", "rows", "error", "says"),
    [
        (["a", "b c"], ROWS[:2], ValueError, "word 1 is 'b c'"),
        (["a", "b\n"], ROWS[:2], ValueError, r"word 1 is 'b\\n'"),
        (["a", "b\t"], ROWS[:2], ValueError, "word 1"),
        (["a", "b\0"], ROWS[:2], ValueError, "word 1"),
        (["a", ""], ROWS[:2], ValueError, "word 1 is ''"),
        (["a", "b", "a"], ROWS[:3], ValueError, "word 2, 'a', is word 0 too"),
        (["a", 2], ROWS[:2], TypeError, "word 1 is 2, a int"),
        (["a", "\ud800"], ROWS[:2], ValueError, "surrogate"),
        (["a", "b" * 10_001], ROWS[:2], ValueError, "10,000 bytes"),
        (["a"], ROWS[:2], ValueError, r"\(2, 3\), for 1 words"),
        (["a"], ROWS[0], ValueError, r"\(3,\)"),
        (["a"], ROWS[:1, :0], ValueError, r"\(1, 0\)"),
        (["a"], [[float("nan")]], ValueError, "'a', 0, is not finite"),
        (["a"], [[1e39]], ValueError, "not finite in float32"),
        (["a"], [["x"]], TypeError, "<U1"),
        (["a"], [[1j]], TypeError, "complex"),
    ],
)
def test_what_could_not_be_read_back_is_not_saved(tmp_path, words, rows, error, says) -> None:
    (tmp_path / "a.bin").write_bytes(b"before")
    with pytest.raises(error, match=says):
        save(tmp_path / "a.bin", words, rows)
    assert os.listdir(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"before"


def test_a_name_that_does_not_say_which_format(tmp_path) -> None:
    with pytest.raises(ValueError, match="binary="):
        save(tmp_path / "vectors", WORDS, ROWS)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a.bin", "a.txt.gz"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, name: str) -> None:
    class Words(list):
        def __iter__(self):
            self.seen = getattr(self, "seen", 0) + 1
            yield self[0]
            if self.seen > 1:  # when they are written, not when they are looked at
                raise OSError("No space left on device")
            yield from self[1:]

    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / name, Words(WORDS), ROWS)
    monkeypatch.setattr(word2vec.os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tmp_path / name, WORDS, ROWS)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"before"


WORD = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1)


@given(st.dictionaries(WORD, st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                                      min_size=2, max_size=2)), st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_words_and_numbers_come_back(tmp_path_factory, table: dict, as_binary: bool) -> None:
    path = tmp_path_factory.mktemp("any") / "vectors"
    rows = np.array(list(table.values()), np.float32).reshape(len(table), 2)
    save(path, list(table), rows, binary=as_binary)
    for how in (as_binary, None):  # told, and by a look inside
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no such numbers", UserWarning)
            words, loaded = load(path, binary=how)
        assert words == list(table) and np.array_equal(loaded, rows)


# --- With gensim ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.bin", "a.txt", "a.bin.gz", "a.txt.gz"])
def test_gensim_reads_what_we_write_and_we_what_it_writes(tmp_path, name: str) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    path, is_binary = tmp_path / name, ".bin" in name
    save(path, WORDS, ROWS)
    theirs = models.KeyedVectors.load_word2vec_format(str(path), binary=is_binary)
    assert theirs.index_to_key == WORDS and np.array_equal(theirs.vectors, ROWS)
    again = tmp_path / ("again" + name)
    theirs.save_word2vec_format(str(again), binary=is_binary)
    words, rows = load(again)
    assert words == WORDS and np.array_equal(rows, ROWS)
    theirs.save_word2vec_format(str(again), binary=is_binary, write_header=is_binary)
    assert load(again)[0] == WORDS


# --- Words in an order ------------------------------------------------------------------------


def test_a_dictionary_of_words_follows_its_numbers(tmp_path) -> None:
    place = {word: i for i, word in enumerate(WORDS)}
    shuffled = {word: place[word] for word in reversed(WORDS)}
    save(tmp_path / "a.bin", shuffled, ROWS)
    assert (tmp_path / "a.bin").read_bytes() == binary()


@pytest.mark.parametrize("place", [{"a": 1, "b": 2}, {"a": 0, "b": 0}, {"a": "x", "b": None}])
def test_a_dictionary_with_other_numbers_is_refused(tmp_path, place: dict) -> None:
    with pytest.raises(ValueError, match="not to the rows 0 to 1"):
        save(tmp_path / "a.bin", place, ROWS[:2])


@pytest.mark.parametrize("words", [{"a", "b"}, frozenset("ab"), "ab", b"ab"])
def test_words_without_an_order_are_refused(tmp_path, words) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        save(tmp_path / "a.bin", words, ROWS[:2])


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*none: make it"):
        save(tmp_path / "none" / "a.bin", WORDS, ROWS)
