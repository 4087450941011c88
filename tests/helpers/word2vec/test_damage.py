"""helpers.word2vec.load refuses what is damaged, and names the place."""

import bz2
import gzip
import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from vector_files import ROWS, WORDS, binary, damaged, refused, text

from helpers import word2vec
from helpers.word2vec import load
from tools.bench import files

# --- Binary -----------------------------------------------------------------------------------


RECORD = len(b"4 3\nthe ") + 12  # where the second record begins


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (damaged(8, struct.pack("<f", float("nan"))), "byte 4: the row of 'the' holds nan, at 0"),
        (damaged(12, struct.pack("<f", float("-inf"))), "byte 4: .*'the' holds -inf, at 1"),
        (damaged(RECORD, b"\xff"), f"byte {RECORD}: .*not UTF-8.*latin-1.*'the', hold a space"),
        (damaged(RECORD, b" "), f"byte {RECORD}: after the word b''.*a space"),
        (damaged(RECORD + 1, b"\n"), f"byte {RECORD}: .*newline"),
        (binary() + b"x", f"byte {len(binary())}: b'x' follows row 4"),
        (binary() + b"\n\n", f"byte {len(binary())}: .*follows row 4"),
        (binary()[:-1], "line 1: .*4 words|ends in row 4 of 4"),
        (damaged(0, b"5"), "line 1|row 5 of 5"),
        (damaged(0, b"3"), "follows row 3"),
        (damaged(0, b"0"), "follows row 0"),
        (damaged(2, b"0"), "D from 1"),
        (b"4 3" + binary()[4:], "line 1: it begins with b'4 3the"),
        (b"x" + binary(), "line 1: it begins with b'x4 3"),
        (b"", "line 1"),
    ],
)
def test_binary_that_is_damaged_is_refused_by_its_byte(put, data: bytes, says: str) -> None:
    for kind in (data, gzip.compress(data)):
        assert re.search(says, refused(put(kind, "bad.bin")))


def test_no_part_of_a_binary_file_loads(put) -> None:
    for between in (b"", b"\n"):
        data = binary(between=between)
        for n in range(len(data)):
            refused(put(data[:n], "cut.bin"))
    packed = gzip.compress(binary())
    for n in range(len(packed)):
        refused(put(packed[:n], "cut.bin.gz"))


def test_no_other_header_loads(put) -> None:
    # Words of odd lengths: with equal ones a wrong header can fit to the byte, and nobody can tell.
    words = [f"{i}" + "x" * n for i, n in enumerate([0, 3, 9, 1, 14, 5, 2, 30, 4, 17, 6, 11])]
    rows = np.random.default_rng(0).normal(size=(12, 6))
    body = binary(words, rows).split(b"\n", 1)[1]
    for V in range(40):
        for D in range(40):
            if (V, D) != (12, 6):
                refused(put(b"%d %d\n" % (V, D) + body, "wrong.bin"), errors="replace")
    assert load(put(b"12 6\n" + body, "wrong.bin"))[0] == words


def test_flipped_bits_of_a_packed_file(put) -> None:
    packed = gzip.compress(binary(), mtime=0)
    loaded = 0
    for i in range(len(packed) * 8):
        data = bytearray(packed)
        data[i // 8] ^= 1 << i % 8
        try:
            words, rows = load(put(bytes(data), "flipped.bin.gz"))
        except ValueError:
            continue
        loaded += 1
        assert words == WORDS and np.array_equal(rows, ROWS)
    assert loaded < 80  # in gzip's header, which names a time and a system


LIES = [b"1000000000000 300", b"1000000000000 1", b"1 1000000000000", b"1 1000001",
        b"999999999999999999 999999999999999999"]  # fmt: skip


@pytest.mark.parametrize("head", LIES)
@pytest.mark.parametrize("name", ["lies.bin", "lies.txt", "lies.bin.gz", "lies.txt.gz", "lies"])
def test_a_header_that_promises_too_much_is_refused_at_once(put, head, name) -> None:
    data = head + b"\nword 1 2 3\n" * 1000
    path = put(gzip.compress(data) if name.endswith(".gz") else data, name)
    tracemalloc.start()
    refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_word_without_end_is_given_up(put) -> None:
    data = b"2 3\n" + b"x" * 3_000_000
    assert "byte 4: no space in the next 10,000 bytes" in refused(put(data, "x.bin"))
    long = "x" * 10_000
    assert load(put(binary([long, "b"], ROWS[:2])))[0] == [long, "b"]
    refused(put(binary([long + "x", "b"], ROWS[:2]), "x.bin"))


# --- Encodings and repeats --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.bin", "b.txt"])
def test_errors_says_what_to_do_with_words_that_are_not_utf8(put, name: str) -> None:
    data = (binary if name == "a.bin" else text)()
    cut = "東京".encode()[:-1]
    data = data.replace("naïve".encode(), b"na\xc3ve").replace("東京".encode(), cut)
    assert "not UTF-8" in refused(put(data, name))
    for errors in ("replace", "ignore"):
        words, rows = load(put(data, name), errors=errors)
        odd = [word.decode(errors=errors) for word in (b"na\xc3ve", cut)]
        assert words == ["the", *odd, "</s>"] and np.array_equal(rows, ROWS)
        some, rows = load(put(data, name), words[1:2], errors=errors)
        assert some == words[1:2] and np.array_equal(rows, ROWS[1:2])
    with pytest.raises(ValueError, match="errors is 'loud'"):
        load(put(data, name), errors="loud")
    assert "not UTF-8" in refused(put(data, name), words=["the"])  # also where nobody asked


@pytest.mark.parametrize("make", [binary, text])
def test_repeated_words_keep_their_first_row(put, make) -> None:
    words = ["a", "b", "a", "c", "b", "a", "d"]
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    path = put(make(words, rows), "twice")
    with pytest.warns(UserWarning, match="twice: 3 rows repeat a word, such as 'a'") as caught:
        found, loaded = load(path)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert found == ["a", "b", "c", "d"] and np.array_equal(loaded, rows[[0, 1, 3, 6]])
    assert loaded.flags.owndata
    with pytest.warns(UserWarning, match="1 rows repeat"):
        found, loaded = load(path, ["d", "b"])
    assert found == ["d", "b"] and np.array_equal(loaded, rows[[6, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path, ["c", "d"])[0] == ["c", "d"]  # the repeats are not among them


def test_many_repeats(put) -> None:
    words = [f"w{i % 30_000}" for i in range(50_000)]
    rows = np.arange(100_000, dtype=np.float32).reshape(-1, 2)
    with pytest.warns(UserWarning, match="20,000 rows"):
        found, loaded = load(put(binary(words, rows)))
    assert found == words[:30_000] and np.array_equal(loaded, rows[:30_000])


# --- Other files ------------------------------------------------------------------------------


def test_other_kinds_of_files_are_named_and_a_way_is_shown(put, tmp_path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    np.save(tmp_path / "rows.npy", ROWS)
    np.savez(tmp_path / "rows.npz", ROWS)
    said = {name: refused(tmp_path / name) for name in ("model.pt", "rows.npy", "rows.npz")}
    assert "zip" in said["model.pt"] and "zip" in said["rows.npz"] and "NumPy" in said["rows.npy"]
    for protocol in range(2, 6):
        pickled = refused(put(pickle.dumps({"a": 1}, protocol), "vectors.kv"), binary=True)
        assert "a pickle" in pickled and "save_word2vec_format" in pickled
    assert "fastText" in refused(put(struct.pack("<ii", 793712314, 12), "cc.en.300.bin"))
    assert "web page" in refused(put(b"<!DOCTYPE html><html>", "GoogleNews.bin"))
    assert "bzip2" in refused(put(bz2.compress(text()), "wiki.txt.bz2"))
    assert "a pickle" in refused(put(gzip.compress(b"\x80\x04."), "vectors.gz"))


def test_gensims_own_format_is_named(tmp_path) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    vectors = models.KeyedVectors(3)
    vectors.add_vectors(WORDS, ROWS)
    vectors.save(str(tmp_path / "vectors.kv"))
    assert "save_word2vec_format" in refused(tmp_path / "vectors.kv")


def test_no_file(tmp_path) -> None:
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
            load(path)


def test_no_pickle_and_no_import() -> None:
    source = Path(word2vec.__file__).read_text("utf-8")
    assert not re.search(r"import (pickle|torch|helpers)|from (torch|helpers)|allow_pick", source)
    told = "import sys, helpers.word2vec; print('tqdm' in sys.modules, 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True,
                         cwd=Path(__file__).parents[2])  # fmt: skip
    assert ran.stdout.split() == ["False", "False"]


def test_damaged_files_load_or_are_refused(tmp_path) -> None:
    found = files.fuzz(600, seed=int(os.environ.get("FUZZ_SEED", 1)), folder=tmp_path)
    assert found["refused"] > 300 and found["loaded"] > 20
    assert found["refused"] + found["loaded"] == 600


def test_the_damage_would_be_noticed(tmp_path, monkeypatch) -> None:
    for wrong in (KeyError("x"), MemoryError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x")):

        def fails(*_, wrong=wrong, **__):
            raise wrong

        monkeypatch.setattr(files.word2vec, "load", fails)
        with pytest.raises(RuntimeError, match="a damaged"):
            files.fuzz(5, seed=0, folder=tmp_path)
    monkeypatch.setattr(files.word2vec, "load", lambda *_, **__: (["a"], np.full((1, 2), np.nan)))
    with pytest.raises(RuntimeError, match="loads as"):
        files.fuzz(5, seed=0, folder=tmp_path)
