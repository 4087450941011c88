"""helpers.word2vec.load: files that people have had. The right rows, or what to do."""

import gzip
import io
import lzma
import re
import struct
import tarfile

import numpy as np
import pytest
from vector_files import KINDS, ROWS, WORDS, binary, refused, text

from helpers.word2vec import load

BOM = b"\xef\xbb\xbf"


def rows_of(V: int, D: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (V, D)).astype(np.float32)


# --- Words with a space, and empty ones -------------------------------------------------------


@pytest.mark.parametrize("word", ["New York", "vitamin c", "New Yor", "a b c", "São Paulo", "x 東"])
def test_a_word_with_a_space_in_a_binary_file(put, word: str) -> None:
    words = ["the", word, "of", "cat"]
    for seed in range(60):
        data = binary(words, rows_of(4, 100, seed))
        for asked in (None, ["of"], ["the", "cat"]):
            for errors in ("strict", "replace", "ignore"):
                told = refused(put(data), words=asked, errors=errors)
                first, rest = word.encode().split(b" ", 1)
                assert f"byte 410: after the word {first!r} stand {rest + b' '!r}" in told
                assert "hold a space" in told and "as New_York, or as text" in told


def test_rows_that_begin_as_text_are_rows(put) -> None:
    rows = rows_of(4, 100)
    rows[1:3, :2] = np.frombuffer(b"York >>>", "<f4")
    assert struct.pack("<f", rows[1, 0]) == b"York"
    rows[1, 0] = np.frombuffer(b"E> >", "<f4")[0]
    rows[2, 0] = np.frombuffer(b"A =>", "<f4")[0]
    words, loaded = load(put(binary(WORDS, rows)))
    assert words == WORDS and np.array_equal(loaded, rows)


def test_errors_replace_is_advised_where_it_helps(put) -> None:
    cut = binary(["the", "ab", "of"], ROWS[:3]).replace(b"ab ", "東".encode()[:2] + b" ")
    assert "errors='replace' reads" in refused(put(cut))
    odd = binary(["the", "ab", "of"], ROWS[:3]).replace(b"ab ", b"\xffb ")
    told = refused(put(odd))
    assert "replace" not in told and "b'the', hold a space" in told and "latin-1" in told


@pytest.mark.parametrize("make", [binary, text])
def test_a_number_near_the_largest_is_warned_of(put, make) -> None:
    rows = ROWS.copy()
    rows[1, 2] = 2.0**124
    path = put(make(WORDS, rows))
    with pytest.warns(UserWarning, match="the row of 'naïve' holds 2.12.*e[+]37, at 2.*damaged"):
        assert np.array_equal(load(path)[1], rows)
    load(path, ["the"])
    rows[2, 1] = np.inf
    refused(put(make(WORDS, rows)))


@pytest.mark.parametrize("make", [binary, text])
def test_an_empty_word_is_kept(put, make) -> None:
    for words in (["", "a", "b", "c"], ["a", "", "b", "c"], ["a", "b", "c", ""]):
        path = put(make(words, ROWS))
        with pytest.warns(UserWarning, match="one word is empty") as caught:
            found, rows = load(path)
        assert found == words and np.array_equal(rows, ROWS) and len(caught) == 1
        found, rows = load(path, ["c", "a"])
        assert np.array_equal(rows, ROWS[[words.index("c"), words.index("a")]])


def test_an_empty_word_in_a_file_of_word2vecs_own_tool(put) -> None:
    path = put(binary(["a", "", "b", "c"], ROWS, b"\n", b"\n"))
    with pytest.warns(UserWarning, match="empty"):
        words, rows = load(path)
    assert words == ["a", "", "b", "c"] and np.array_equal(rows, ROWS)


def test_text_with_a_header_is_read_from_the_right(put) -> None:
    words = ["the", "windows 10", "to infinity", "1 2 3"]
    path = put(text(words))
    assert load(path)[0] == words and np.array_equal(load(path)[1], ROWS)
    found, rows = load(path, ["windows 10"])
    assert found == ["windows 10"] and np.array_equal(rows, ROWS[1:2])
    assert load(put(b"1 2\nwindows 10 0.3 0.4\n"))[0] == ["windows 10"]


def test_text_without_a_header_tells_what_to_do(put) -> None:
    assert load(put(text(["the", "to infinity", "a", "b"], head=False)))[0][1] == "to infinity"
    told = refused(put(text(["the", "windows 10", "a", "b"], head=False)))
    assert "line 2" in told and "put a line 'V D' on top" in told
    assert "line 2" in refused(put(b"a 1 2\nb  1 2\n"))
    assert "line 3" in refused(put(b"2 2\na 1 2\nb  1 2\n"))


# --- What a file is ---------------------------------------------------------------------------


def test_a_byte_order_mark_is_passed_over(put) -> None:
    for head in (True, False):
        path = put(BOM + text(head=head))
        assert load(path)[0] == WORDS and np.array_equal(load(path)[1], ROWS)
        assert load(path, ["the"])[0] == ["the"]
        assert load(put(gzip.compress(BOM + text(head=head))))[0] == WORDS
    words, rows = load(put(BOM + binary()))
    assert words == WORDS and np.array_equal(rows, ROWS)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(put, encoding: str) -> None:
    told = refused(put(text().decode().encode(encoding), "windows.txt"))
    assert "text in UTF-16" in told and "in UTF-8" in told


@pytest.mark.parametrize("name", ["a.bin", "a.txt", "a.vec", "a.bin.gz", "a"])
def test_what_is_in_a_file_decides_not_its_name(put, name: str) -> None:
    packed = gzip.compress if name.endswith(".gz") else bytes
    toy = b"2 2\na 1.25 2.5\nb 3.5 4.5\n"
    rows = [[1.25, 2.5], [3.5, 4.5]]
    for data in (toy, toy[4:]):
        assert load(put(packed(data), name))[1].tolist() == rows
        assert load(put(packed(data), name), binary=False)[1].tolist() == rows
        assert "you say binary=True, but" in refused(put(packed(data), name), binary=True)
    for data in (binary(), binary(between=b"\n", after=b"\n")):
        assert np.array_equal(load(put(packed(data), name))[1], ROWS)
        assert np.array_equal(load(put(packed(data), name), binary=True)[1], ROWS)
        told = refused(put(packed(data), name), binary=False)
        assert "its first row is binary" in told and "Leave binary= out" in told


def test_where_the_content_leaves_a_doubt_the_name_decides(put) -> None:
    data = b"1 1\na abcd"
    assert load(put(data, "a.bin"))[1].shape == (1, 1)
    assert "line 2" in refused(put(data, "a.txt"))


def tar(data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        member = tarfile.TarInfo("vectors.txt")
        member.size = len(data)
        files.addfile(member, io.BytesIO(data))
    return archive.getvalue()


OTHERS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
    "web page": b"<!doctype html><html>",
    "web page (HTML": b"\n <HTML lang=en>",
    "web page (HTML or XML)": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "packed by xz": lzma.compress(text()),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(60),
    "zstd": b"\x28\xb5\x2f\xfd\x24" + bytes(60),
    "rar": b"Rar!\x1a\x07\x01\0" + bytes(60),
    "a tar": tar(text()),
    "tar archive": gzip.compress(tar(text())),
    "gzip twice": gzip.compress(gzip.compress(text())),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt"])
def test_other_files_are_named_for_what_they_are(put, kind: str, name: str) -> None:
    told = refused(put(OTHERS[kind], name))
    assert kind in told and re.search("Unpack|Fetch|Download", told)
    assert refused(put(OTHERS[kind], name), words=["the"]) == told


# --- encoding and limit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "word"),
    [("latin-1", "été"), ("cp1251", "слово"), ("gb18030", "东京"), ("sjis", "表")],
)
def test_words_in_another_encoding(put, encoding: str, word: str) -> None:
    words = ["the", word, "of", "</s>"]
    for make in (binary, text):
        data = make(words, ROWS).replace(word.encode(), word.encode(encoding))
        path = put(data)
        assert "encoding='latin-1'" in refused(path) or "errors='replace'" in refused(path)
        found, rows = load(path, encoding=encoding)
        assert found == words and np.array_equal(rows, ROWS)
        found, rows = load(path, [word, "missing", "東"], encoding=encoding)
        assert found == [word] and np.array_equal(rows, ROWS[1:2])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "klingon", "cp037"])
def test_an_encoding_that_cannot_be(put, encoding: str) -> None:
    with pytest.raises(ValueError, match=f"encoding is '{encoding}': .*UTF-8"):
        load(put(text()), encoding=encoding)


@pytest.mark.parametrize("name", KINDS)
def test_limit_loads_the_first_rows(put, name: str) -> None:
    path = put(KINDS[name], name)
    for limit in range(6):
        words, rows = load(path, limit=limit)
        assert words == WORDS[:limit] and np.array_equal(rows, ROWS[:limit])
    assert load(path, ["</s>", "the"], limit=3)[0] == ["the"]
    with pytest.raises(ValueError, match="limit is -1"):
        load(path, limit=-1)


def test_what_follows_the_limit_is_not_looked_at(put) -> None:
    assert load(put(binary()[:40]), limit=1)[0] == ["the"]
    assert load(put(text()[:-9]), limit=3)[0] == WORDS[:3]
    assert "cut short" in refused(put(binary()[:-1]), limit=4)
