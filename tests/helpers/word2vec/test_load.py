"""helpers.word2vec.load: what a file says, byte by byte, is what is loaded."""

import gzip
import re
import struct
import sys

import numpy as np
import pytest
import torch
import tqdm
from vector_files import KINDS, ROWS, WORDS, binary, damaged, refused, text

from helpers import word2vec
from helpers.word2vec import load

# --- Whole files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_every_kind_of_file_loads_the_same(put, name: str, named: bool) -> None:
    words, rows = load(put(KINDS[name], name if named else "vectors"))
    assert words == WORDS
    assert rows.dtype == np.float32 and rows.shape == (4, 3) and np.array_equal(rows, ROWS)
    assert rows.flags.owndata and rows.flags.c_contiguous and rows.flags.writeable
    assert torch.from_numpy(rows).dtype == torch.float32


def test_strings_are_paths_too(put) -> None:
    assert load(str(put(binary())))[0] == WORDS


def test_a_word_may_span_blocks_and_a_row_be_longer_than_one(put, monkeypatch) -> None:
    generator = np.random.default_rng(1)
    for block, D in [(1, 3), (64, 3), (100, 40), (1 << 20, 300)]:
        monkeypatch.setattr(word2vec, "_BLOCK", block)
        monkeypatch.setattr(word2vec, "_LONGEST_WORD", 30)
        words = ["w" * int(n) + str(i) for i, n in enumerate(generator.integers(1, 25, 300))]
        rows = generator.standard_normal((300, D)).astype(np.float32)
        for data in (binary(words, rows), binary(words, rows, b"\n", b"\n"), text(words, rows)):
            for packed in (data, gzip.compress(data)):
                found, loaded = load(put(packed))
                assert found == words and np.array_equal(loaded, rows)
                some, loaded = load(put(packed), words[250:40:-7])
                assert some == words[250:40:-7] and np.array_equal(loaded, rows[250:40:-7])


def test_floats_made_of_spaces_newlines_and_digits_are_floats(put) -> None:
    bytes_ = [b"    ", b"\n\n\n\n", b" \n \n", b"1 2\n", b"\n0.1", b"\n   "]
    rows = np.array([struct.unpack("<f", b)[0] for b in bytes_], np.float32).reshape(3, 2)
    for data in (binary("abc", rows), binary("abc", rows, b"\n", b"\n")):
        words, loaded = load(put(data, "odd.bin"))
        assert words == ["a", "b", "c"] and np.array_equal(loaded, rows)


def test_no_words(put) -> None:
    for name in ("empty.bin", "empty.txt"):
        words, rows = load(put(b"0 7\n", name))
        assert words == [] and rows.shape == (0, 7) and rows.dtype == np.float32


# --- Text -------------------------------------------------------------------------------------


def test_glove_words_may_hold_spaces(put) -> None:
    words = ["the", ". . .", "at name@domain.com", "1/2"]
    for head in (True, False):
        assert load(put(text(words, head=head)))[0] == words
    assert load(put(text(words[1:], ROWS[1:], head=False)))[0] == words[1:]


def test_a_first_line_of_two_whole_numbers_is_a_header(put) -> None:
    words, rows = load(put(b"1 1\nword 5\n"))
    assert words == ["word"] and rows.tolist() == [[5]]
    words, rows = load(put(b"5 0.5\n6 7\n"))  # not a whole number, so a word with one number
    assert words == ["5", "6"] and rows.tolist() == [[0.5], [7]]
    assert "3 words" in refused(put(b"3 1\n"), binary=False)


def test_white_space_that_is_not_ascii_belongs_to_the_word(put) -> None:
    words = ["a\u00a0b", "\u2028", "\x85", "\u3000"]
    assert load(put(text(words, head=False)))[0] == words
    assert load(put(binary(words)))[0] == words


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"2 2\na 1 2\nb 1\n", "line 3.*2 numbers"),
        (b"2 2\na 1 2\nb 1  2\n", "line 3"),
        (b"2 2\na 1 2\nb  1 2\n", "line 3"),
        (b"2 2\na 1 2\nb 1 x\n", "line 3.*'x'"),
        (b"2 2\na 1 2\nb 1 1_0\n", "line 3.*'1_0'"),
        (b"2 2\na 1 2\nb 1 nan\n", "line 3.*'b'.*nan"),
        (b"2 2\na 1 2\nb -inf 1\n", "line 3.*'b'.*-inf"),
        (b"2 2\na 1 2\nb 1 1e39\n", "line 3.*'b'.*inf"),
        (b"2 2\na 1 2\n", "after 1 words. Expected 2|line 1.*promises 2"),
        (b"2 2\na 1 2\nb 1 2\n\nc 1 2\n", "line 5.*more than the 2"),
        (b"2 2\na 1 2\nb\xff 1 2\n", "line 3.*not UTF-8"),
        (b"2 2\na 1 2 3\nb 1 2 3\n", "line 2.*over 2 numbers.*header"),
        (b"2 0\na\nb\n", "line 1.*D from 1"),
        (b"a 1 2\nb 1 2 3\n", "line 2.*2 numbers"),
        (b"a 1 nan\nb 1 2\n", "line 1.*'a'.*nan"),
        (b"no numbers at all\n", "line 1"),
        (b"\n\n", "line 1"),
        (b"", "line 1"),
    ],
)
def test_text_that_is_damaged_is_refused_by_its_line(put, data: bytes, says: str) -> None:
    for kind in (data, gzip.compress(data)):
        assert re.search(says, refused(put(kind, "bad.txt")))


def test_a_line_without_end_is_given_up(put, monkeypatch) -> None:
    monkeypatch.setattr(word2vec, "_LONGEST_WORD", 100)
    assert "line 3" in refused(put(b"2 2\na 1 2\n" + b"b" * 200 + b" 1 2\n"))
    assert load(put(b"2 2\na 1 2\n" + b"b" * 90 + b" 1 2\n"))[0] == ["a", "b" * 90]


# --- Chosen words -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_chosen_words_come_in_the_order_asked(put, name: str) -> None:
    path = put(KINDS[name], name)
    words, rows = load(path, ["東京", "missing", "the", "東京", "Naïve"])
    assert words == ["東京", "the"] and np.array_equal(rows, ROWS[[2, 0]])
    assert rows.dtype == np.float32 and rows.flags.owndata
    words, rows = load(path, iter(["</s>"]))
    assert words == ["</s>"] and np.array_equal(rows, ROWS[3:])
    for nothing in ([], ["missing"]):
        words, rows = load(path, nothing)
        assert words == [] and rows.shape == (0, 3) and rows.dtype == np.float32


def test_numbers_that_nobody_asked_for_are_not_looked_at(put) -> None:
    path = put(damaged(8, struct.pack("<f", float("nan"))))
    assert load(path, ["</s>"])[0] == ["</s>"]
    assert "'the'" in refused(path, words=["</s>", "the"])
    path = put(b"2 2\na x 1\nb 1 2\n", "a.txt")
    assert "line 2" in refused(path, words=["a"])
    words, rows = load(path, ["b"])
    assert words == ["b"] and rows.tolist() == [[1, 2]]


def test_a_file_is_read_to_its_end_for_few_words_too(put) -> None:
    refused(put(binary()[:-1], "cut.bin"), words=["the"])
    refused(put(gzip.compress(binary())[:-1], "cut.bin.gz"), words=["the"])
    refused(put(text() + b"more 1 2 3\n", "long.txt"), words=["the"])


def test_words_that_are_no_list_of_strings(put) -> None:
    with pytest.raises(TypeError, match=r"\['the'\]"):
        load(put(binary()), "the")
    with pytest.raises(TypeError, match="b'the' in it, a bytes"):
        load(put(binary()), ["a", b"the"])


# --- Progress ---------------------------------------------------------------------------------


def test_a_bar_shows_the_bytes_that_are_read_but_not_in_ci(put, monkeypatch, capsys) -> None:
    monkeypatch.setattr("tqdm.auto.tqdm", tqdm.tqdm)  # a notebook's warns here
    for name in ("gensim.bin", "glove.txt", "gensim.bin.gz"):
        path = put(KINDS[name], name)
        monkeypatch.setenv("CI", "1")
        load(path, progress=True)
        assert capsys.readouterr() == ("", "")
        monkeypatch.delenv("CI")
        load(path)
        assert capsys.readouterr() == ("", "")
        load(path, progress=True)
        shown = capsys.readouterr().err
        assert f"reading {name}: 100%" in shown and "B/s" in shown


def test_it_loads_without_tqdm(put, monkeypatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert load(put(binary()), progress=True)[0] == WORDS
