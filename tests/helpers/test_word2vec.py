"""helpers.word2vec: what a file says, byte by byte, is what is loaded, or it is refused."""

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
import tqdm
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import word2vec
from helpers.word2vec import load, save
from tools.bench import files

WORDS = ["the", "naïve", "東京", "</s>"]
ROWS = np.array([[1, -2, 0.5], [0.1, 1e-30, -0.0], [3.25, 1e30, 7], [-1, 0, 2**-140]], np.float32)


def binary(words=WORDS, rows=ROWS, between: bytes = b"", after: bytes = b"") -> bytes:
    """A binary file by hand: `between` the records, `after` the last."""
    records = [w.encode() + b" " + struct.pack(f"<{len(r)}f", *r)
               for w, r in zip(words, rows, strict=True)]  # fmt: skip
    return b"%d %d\n" % (len(words), len(rows[0])) + between.join(records) + after


def text(words=WORDS, rows=ROWS, end: str = "\n", head: bool = True) -> bytes:
    lines = [f"{len(words)} {len(rows[0])}"] if head else []
    lines += [" ".join([w, *map(str, r)]) for w, r in zip(words, rows, strict=True)]
    return "".join(line + end for line in lines).encode()


KINDS = {
    "gensim.bin": binary(),
    "word2vec.bin": binary(between=b"\n", after=b"\n"),
    "between.bin": binary(between=b"\n"),
    "windows.bin": binary().replace(b"\n", b"\r\n", 1),
    "header.txt": text(),
    "glove.txt": text(head=False),
    "windows.vec": text(end="\r\n"),
    "original.txt": text(end=" \n"),  # word2vec.c writes a space after each number
    "unended.txt": text()[:-1],
    "blank.txt": text() + b"\n\n",
    "gensim.bin.gz": gzip.compress(binary()),
    "members.bin.gz": gzip.compress(binary()[:30]) + gzip.compress(binary()[30:]),
    "glove.vec.gz": gzip.compress(text(head=False)),
    "UPPER.BIN": binary(),
}


@pytest.fixture
def put(tmp_path):
    """Writes bytes into a file, and gives its path."""

    def write(data: bytes, name: str = "vectors") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def refused(path: Path, **options) -> str:
    """What `load` says of a file that it does not load."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        load(path, **options)
    assert type(caught.value) is ValueError  # and no kind of it that says less
    return str(caught.value)


# --- Whole files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_every_kind_of_file_loads_the_same(put, name: str, named: bool) -> None:
    words, rows = load(put(KINDS[name], name if named else "vectors"))
    assert words == WORDS
    assert rows.dtype == np.float32 and rows.shape == (4, 3) and np.array_equal(rows, ROWS)
    assert rows.flags.owndata and rows.flags.c_contiguous and rows.flags.writeable
    assert torch.from_numpy(rows).dtype == torch.float32


def test_a_name_decides_and_binary_overrules_it(put) -> None:
    assert load(put(binary(), "odd.txt"), binary=True)[0] == WORDS
    assert load(put(text(), "odd.bin"), binary=False)[0] == WORDS
    assert "byte" in refused(put(text(), "odd.bin"))
    assert "byte" in refused(put(text(), "odd"), binary=True)
    refused(put(binary(), "odd.vec"))


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
    bytes_ = [b"    ", b"\n\n\n\n", b" \n \n", b"1 2\n", b"0.1 ", b"\n   "]
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
        (b"2 2\na 1 2\nb 1 2 3\n", "line 3.*2 numbers"),
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
        (b"2 2\na 1 2\n 1 2\n", "line 3.*empty"),
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


# --- Binary -----------------------------------------------------------------------------------


def damaged(at: int, new: bytes) -> bytes:
    """The binary file with bytes replaced from a place on."""
    data = binary()
    return data[:at] + new + data[at + len(new) :]


RECORD = len(b"4 3\nthe ") + 12  # where the second record begins


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (damaged(8, struct.pack("<f", float("nan"))), "byte 4: the row of 'the' holds nan, at 0"),
        (damaged(12, struct.pack("<f", float("-inf"))), "byte 4: .*'the' holds -inf, at 1"),
        (damaged(RECORD, b"\xff"), f"byte {RECORD}: .*not UTF-8.*replace"),
        (damaged(RECORD, b" "), f"byte {RECORD}: .*empty"),
        (damaged(RECORD + 1, b"\n"), f"byte {RECORD}: .*newline"),
        (binary() + b"x", f"byte {len(binary())}: b'x' follows row 4"),
        (binary() + b"\n\n", f"byte {len(binary())}: .*follows row 4"),
        (binary()[:-1], "line 1: .*4 words|ends in row 4 of 4"),
        (damaged(0, b"5"), "line 1|row 5 of 5"),
        (damaged(0, b"3"), "follows row 3"),
        (damaged(0, b"0"), "follows row 0"),
        (damaged(2, b"0"), "D from 1"),
        (b"4 3" + binary()[4:], "byte 0: it begins with b'4 3the"),
        (b"x" + binary(), "byte 0: it begins with b'x4 3"),
        (b"", "byte 0"),
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


def test_every_flipped_bit_of_a_packed_file_is_noticed_or_does_no_harm(put) -> None:
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
def test_a_repeated_word_keeps_its_first_row_and_one_warning_counts_them(put, make) -> None:
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


def test_no_pickle_is_opened_and_nothing_of_ours_or_torch_is_imported() -> None:
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
