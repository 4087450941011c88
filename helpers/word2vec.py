"""The word2vec file formats: `load` reads a file of word vectors, `save` writes one.

A binary file is a line "V D", then V records: a word in UTF-8, a space, and D float32 of four bytes
each, the lowest byte first. word2vec's own tool ends a record with a newline, others do not. A text
file is the same first line, then V lines "word 0.1 -0.2 ..."; GloVe leaves the first line out.
Either may be packed by gzip. Source: word2vec.c in https://code.google.com/archive/p/word2vec

This module stands alone: take it to your own project. It needs NumPy, and shows a progress bar
where tqdm is installed. It opens no pickle, so no file that it reads can run code.

How it works: `_blocks` reads the header and hands on to `_binary_blocks` or `_text_blocks`, which
cut the file into blocks of about two megabytes; `_collect` copies the wanted rows from each.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import secrets
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, count, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_BLOCK = 1 << 21  # bytes: few enough to stay in the processor's cache until they are copied
_MOST_NUMBERS = 1_000_000  # in a row, and
_LONGEST_WORD = 10_000  # bytes: so far goes what a damaged file can make us look for
_GZIP = 1032  # times its own size is the most that a gzip file unpacks to
_BAR_FROM = 20_000_000  # bytes: less is loaded before a bar would show

# How other files begin that people try to load, what they are, and what to do.
_ANEW = (
    "Open it with the library that wrote it and write it anew: in gensim with "
    "KeyedVectors.save_word2vec_format(path, binary=True), elsewhere with this module's save"
)
_OTHERS = {
    b"\x80": ("a pickle, as gensim's own save makes", _ANEW),
    b"PK\x03\x04": ("a zip, as torch.save, np.savez and downloads are", f"Unzip it. {_ANEW}"),
    b"\x93NUMPY": ("a NumPy array, without words", _ANEW),
    b"\x89HDF": ("an HDF5 file", _ANEW),
    b"\xba\x16\x4f\x2f": ("a fastText model", "Its vectors are in the .vec file beside it"),
    b"BZh9": ("packed by bzip2", "Unpack it"),
    b"<!DOCTYPE": ("a web page", "Download it again"),
    b"<html": ("a web page", "Download it again"),
}


def load(
    path: str | os.PathLike[str],
    words: Iterable[str] | None = None,
    binary: bool | None = None,
    errors: str = "strict",
    progress: bool | None = None,
) -> tuple[list[str], np.ndarray]:
    """The words of a word2vec file and their rows.

    A word that stands more than once keeps its first row, and one warning counts these. In text, a
    first line of two whole numbers is a header, always. Without one, the first line tells D. A
    text line may have a word with spaces in it, as GloVe's ". . .".

    Args:
        path: the file. One packed by gzip is told by its first bytes.
        words: load the rows of these words only. Of the other rows the word is checked, the
            numbers are not.
        binary: whether the file is binary. Default: yes if its name ends in .bin or .bin.gz, no
            if in .txt, .vec, .txt.gz or .vec.gz, and else as it looks inside.
        errors: for words that are not UTF-8, as in bytes.decode: "strict", "replace", "ignore".
            word2vec's own tool can cut a long word in the middle of a letter.
        progress: whether to show a bar. Default: where loading takes more than a second. Where
            the environment variable CI is set there is none.

    Returns:
        The words, and their rows as float32 (number of words, D), in the file's order. With
        `words`, those of them that the file has, each once, in the order asked.

        Memory: that of what is returned and 10 bytes a word, and a few megabytes. Until the end,
        an eighth of the rows more for gzip and for text without a header; twice the rows for
        `words`. The file is read in blocks, never mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, or not what its header says; a word is not UTF-8, a
            number not finite; it is another kind of file. Names the byte (after unpacking) or
            the line.
        TypeError: words is a single string, or one of them is no string.
    """
    path, wanted = Path(path), _wanted(words)
    if errors not in ("strict", "replace", "ignore"):
        raise ValueError(f"errors is {errors!r}: expected 'strict', 'replace' or 'ignore'")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as stored, _bar(path, progress) as bar:
        file = _File(path.name, stored, errors, bar)
        try:
            found, rows = _collect(*_blocks(file, binary), wanted)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path.name}: damaged, or cut short: {error}") from error
        file.show()
    found, rows, repeats = _first_rows(found, rows)
    if repeats:
        warnings.warn(
            f"{path.name}: {len(repeats):,} rows repeat a word, such as {repeats[0]!r}. The first "
            "row of each word is kept.", UserWarning, stacklevel=2,
        )  # fmt: skip
    if wanted is None:
        return found, rows
    place = {word: i for i, word in enumerate(found)}
    found = [word for word in wanted if word in place]
    return found, rows[[place[word] for word in found]]


def save(
    path: str | os.PathLike[str],
    words: Sequence[str],
    rows: np.ndarray,
    binary: bool | None = None,
) -> None:
    """Write words and rows as gensim does, which gensim and word2vec's own tools read.

    A binary record has no newline after it. Text has the digits that give the same float32 back.
    The file is written whole or not at all: one that was there stays until then.

    Args:
        path: the file. It is packed by gzip if its name ends in .gz.
        words: V words, each once, without white space: readers cut there.
        rows: (V, D) real numbers, in anything that numpy.asarray takes; stored as float32.
        binary: as in `load`. Default: by the name, which must then end as told there.

    Raises:
        ValueError: a name, word or number that cannot be written and read back.
        TypeError: a word that is no string, or rows that are no real numbers.
    """
    path = Path(path)
    if binary is None and (binary := _binary_by_name(path.name)) is None:
        raise ValueError(f"{path.name}: let it end in .bin, .txt or .vec, or say which by binary=")
    rows = _writable(words, rows)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with contextlib.ExitStack() as files:
            out = files.enter_context(part.open("xb"))
            if path.name.lower().endswith(".gz"):  # no time inside: the same rows, the same bytes
                out = files.enter_context(gzip.GzipFile("", "wb", fileobj=out, mtime=0))
            out.write(b"%d %d\n" % rows.shape)
            for word, row in zip(words, rows, strict=True):
                numbers = row.tobytes() if binary else " ".join(map(str, row)).encode() + b"\n"
                out.write(word.encode() + b" " + numbers)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# --- Which words and rows ---------------------------------------------------------------------


class _Block(NamedTuple):
    """Part of a file: its words, a function that gives rows, and one that tells a row's place."""

    words: list[str]
    rows: Callable[[Sequence[int]], np.ndarray]
    place: Callable[[int], str]


def _wanted(words: Iterable[str] | None) -> dict[str, None] | None:
    """The words asked for, each once, in order; looked up fast."""
    if isinstance(words, (str, bytes)):
        raise TypeError(f"words is the single {words!r}: pass a list, [{words!r}]")
    wanted = None if words is None else dict.fromkeys(words)
    for word in wanted or ():
        if not isinstance(word, str):
            raise TypeError(f"words has {word!r} in it, a {type(word).__name__}: expected strings")
    return wanted


def _collect(
    blocks: Iterator[_Block], D: int, room: int, wanted: dict[str, None] | None
) -> tuple[list[str], np.ndarray]:
    """The words and rows in the blocks, or those wanted, repeats among them."""
    words: list[str] = []
    rows = np.empty((room if wanted is None else 0, D), np.float32)
    for block in blocks:
        kept: Sequence[int] = np.arange(len(block.words))
        if wanted is not None:
            kept = list(compress(count(), map(wanted.__contains__, block.words)))
        if not len(kept):
            continue
        start, end = len(words), len(words) + len(kept)
        if end > len(rows):  # nothing else looks at these rows, so they may move
            rows.resize((max(end, len(rows) * 9 // 8), D), refcheck=False)
        rows[start:end] = block.rows(kept)
        finite = np.isfinite(rows[start:end])
        if not finite.all():
            bad, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"{block.place(kept[bad])}: the row of {block.words[kept[bad]]!r} holds "
                f"{rows[start + bad, column]}, at {column}. Expected finite numbers. Is the file "
                "damaged, or its header wrong?"
            )
        words += block.words if wanted is None else [block.words[i] for i in kept]
    rows.resize((len(words), D), refcheck=False)
    return words, rows


def _first_rows(words: list[str], rows: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    """Words and rows without the repeats, and the repeated words."""
    # Equal words have equal hashes. A million hashes take 8 MB, a set of the words over 30.
    hashes = np.fromiter(map(hash, words), np.int64, len(words))
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():
        return words, rows, []
    first: dict[str, int] = {}
    repeats = [word for i, word in enumerate(words) if first.setdefault(word, i) != i]
    kept = np.fromiter(first.values(), np.int64, len(first))
    for i in range(0, len(kept), 10_000):  # in place: every row stays, or moves up
        part = kept[i : i + 10_000]
        rows[i : i + len(part)] = rows[part]
    rows.resize((len(kept), rows.shape[1]), refcheck=False)
    return list(first), rows, repeats


# --- A file and its header --------------------------------------------------------------------


class _File:
    """A file that is read from front to back, and unpacked on the way if it is packed."""

    def __init__(self, name: str, stored: BinaryIO, errors: str, bar: Any) -> None:
        self.name, self.stored, self.errors, self.bar = name, stored, errors, bar
        self.packed = stored.read(2) == b"\x1f\x8b"
        stored.seek(0)
        self.data = gzip.GzipFile(fileobj=stored) if self.packed else stored
        self.most = os.fstat(stored.fileno()).st_size * (_GZIP if self.packed else 1)  # bytes in it

    def read_into(self, memory: memoryview) -> int:
        self.show()
        return self.data.readinto(memory)

    def show(self) -> None:
        if self.bar is not None:
            self.bar.update(self.stored.tell() - self.bar.n)


def _bar(path: Path, progress: bool | None) -> contextlib.AbstractContextManager:
    """A progress bar over the bytes of a file, or None."""
    size = path.stat().st_size
    if (size >= _BAR_FROM if progress is None else progress) and not os.environ.get("CI"):
        with contextlib.suppress(ImportError):
            from tqdm.auto import tqdm  # here: it is slow to import, and may not be there

            return tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True,
                        delay=0 if progress else 1)  # fmt: skip
    return contextlib.nullcontext()


def _binary_by_name(name: str) -> bool | None:
    name = name.lower().removesuffix(".gz")
    return True if name.endswith(".bin") else False if name.endswith((".txt", ".vec")) else None


def _blocks(file: _File, binary: bool | None) -> tuple[Iterator[_Block], int, int]:
    """A file's blocks, D, and the number of rows to make room for before they come."""
    start = file.data.read(1 << 16)
    for magic, (what, remedy) in _OTHERS.items():
        if start.startswith(magic):
            raise ValueError(f"{file.name} looks like {what}, not like word2vec. {remedy}.")
    header = re.match(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,18})[ \t]*\r?(?:\n|\Z)", start)
    V, D, first = (int(header[1]), int(header[2]), header.end()) if header else (None, 0, 0)
    if binary is None:
        binary = _binary_by_name(file.name)
    if not binary:  # look for numbers in the first word's line
        file.data.seek(first)
        line = file.data.readline(_LONGEST_WORD + 32 * _MOST_NUMBERS).rstrip(b" \r\n")
        numbers = _numbers_at_the_end_of(line)
        if header is None:
            D = numbers
        elif binary is None:
            binary = numbers < D
    if not 1 <= D <= _MOST_NUMBERS:
        raise ValueError(
            f"{file.name}, {'byte 0' if binary else 'line 1'}: it begins with {start[:40]!r}. "
            f"Expected two whole numbers, V and D, D from 1 to {_MOST_NUMBERS:,}"
            f"{'.' if binary else ', or a word and its numbers.'}"
        )
    if V is not None:
        least = V * (4 * D + 2) if binary else V * 2 * (D + 1) - 1
        if least > file.most:
            raise ValueError(
                f"{file.name}, line 1: the header promises {V} words with {D} numbers. Expected "
                f"{least} bytes at the least, and at most {file.most} are there. Is it cut short?"
            )
    file.data.seek(first)
    blocks = _text_blocks(file, V, D) if not binary else _binary_blocks(file, V, D, first)
    return blocks, D, 0 if file.packed or V is None else V


def _decoded(
    joined: bytes, between: bytes, errors: str, place: Callable[[int], str]
) -> list[str]:
    """Words as strings, from their bytes joined by `between`: one call of decode for all."""
    with contextlib.suppress(UnicodeDecodeError):
        decoded = joined.decode("utf-8", errors)
        empty = between * 2 in between + joined + between
        if not empty and (between == b"\n" or b"\n" not in joined):
            return decoded.split(between.decode())
    for i, word in enumerate(joined.split(between)):
        why = "is empty" if not word else "has a newline" if b"\n" in word else None
        try:
            word.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            why = f"is not UTF-8 ({error.reason}; errors='replace' reads it nevertheless)"
        if why:
            raise ValueError(
                f"{place(i)}: the word {word[:40]!r} {why}. Expected a word in UTF-8. Is the file "
                "damaged, or its header wrong?"
            )
    raise AssertionError("one of the words is at fault")


# --- Binary -----------------------------------------------------------------------------------


def _binary_blocks(file: _File, V: int, D: int, start: int) -> Iterator[_Block]:
    """The blocks of a binary file, whose records begin at byte `start`.

    A block is gone when the next one is asked for: all of them share one piece of memory.
    """
    size, left, filled = 4 * D, V, 0
    memory = bytearray(max(_BLOCK, 2 * (_LONGEST_WORD + size)))
    windows = sliding_window_view(np.frombuffer(memory, np.uint8), size)  # one from each byte on
    row = re.compile(rb"(?s) .{%d}" % size)  # and the space before it
    while left:
        more = file.read_into(memoryview(memory)[filled:])
        filled += more
        if not more:
            raise ValueError(
                f"{file.name}, byte {start + filled}: the file ends in row {V - left + 1} of {V}. "
                "Expected all of them. Is it cut short, or the header wrong?"
            )
        # Each row and the space before it become one space, which leaves the words.
        joined, number = row.subn(b" ", memoryview(memory)[:filled])
        number = min(number, left)
        spaces = np.flatnonzero(np.frombuffer(joined, np.uint8) == ord(" "))[:number]
        rows = spaces + 1 + size * np.arange(number)  # where they begin in memory
        words = np.append(0, rows + size)  # where the words do, and at last what is left over
        longest = np.append(rows - 1, filled - 1 - size if number < left else 0) - words
        if (longest > _LONGEST_WORD).any():
            raise ValueError(
                f"{file.name}, byte {start + words[longest.argmax()]}: no space in the next "
                f"{_LONGEST_WORD:,} bytes. Expected a word and a space. Is the header wrong?"
            )
        if number:
            yield _binary_block(file, joined[: spaces[-1]], start + words, windows, rows)
            used = int(words[-1])
            left, start, filled = left - number, start + used, filled - used
            memory[:filled] = memory[used : used + filled]
    extra = bytes(memory[: min(filled, 40)]) + file.data.read(2)
    if extra not in (b"", b"\n"):
        raise ValueError(
            f"{file.name}, byte {start}: {extra!r} follows row {V}, the last by the header. "
            "Expected the end of the file. Is the header wrong?"
        )


def _binary_block(
    file: _File, joined: bytes, places: np.ndarray, windows: np.ndarray, rows: np.ndarray
) -> _Block:
    """The block of words joined by spaces, which stand at `places`; their rows, windows[rows]."""

    def place(i: int) -> str:
        return f"{file.name}, byte {places[i]}"

    if b"\n" in joined:  # those that end the rows before
        joined = joined.replace(b" \n", b" ").removeprefix(b"\n")
    words = _decoded(joined, b" ", file.errors, place)
    return _Block(words, lambda kept: windows[rows[kept]].view("<f4"), place)


# --- Text -------------------------------------------------------------------------------------


def _text_blocks(file: _File, V: int | None, D: int) -> Iterator[_Block]:
    """The blocks of a text file. A header is read before."""
    longest = _LONGEST_WORD + 32 * D  # bytes of a line
    lines = enumerate(iter(lambda: file.data.readline(longest), b""), 1 if V is None else 2)
    seen = 0
    while part := list(islice(lines, max(1, _BLOCK // (8 * D)))):
        file.show()
        for number, line in part:
            if len(line) == longest and not line.endswith(b"\n"):
                raise ValueError(
                    f"{file.name}, line {number}: over {longest} bytes. Expected a word and {D} "
                    "numbers. Is the file binary?"
                )
        full = [(number, line.rstrip(b" \r\n")) for number, line in part if line.strip()]
        seen += len(full)
        if V is not None and seen > V:
            raise ValueError(
                f"{file.name}, line {full[V - seen][0]}: a word more than the {V} of the header. "
                "Expected the end of the file. Is the header wrong?"
            )
        if full:
            yield _text_block(file, full, D)
    if V is not None and seen < V:
        raise ValueError(
            f"{file.name}, line {seen + 2}: the file ends after {seen} words. Expected {V}, by its "
            "header. Is it cut short, or the header wrong?"
        )


def _text_block(file: _File, lines: list[tuple[int, bytes]], D: int) -> _Block:
    """The words and rows of numbered lines."""

    def place(i: int) -> str:
        return f"{file.name}, line {lines[i][0]}"

    def rows(kept: Sequence[int]) -> np.ndarray:
        try:
            return _parsed([numbers[i] for i in kept], D)
        except ValueError:
            for i in kept:  # which of them?
                try:
                    _parsed([numbers[i]], D)
                except ValueError as error:
                    why = str(error).partition(" at row")[0]
                    raise ValueError(f"{place(i)}: {why}. Expected {D} numbers.") from None
            raise

    words, numbers = [], []
    for i, (_, line) in enumerate(lines):
        spaces = line.count(b" ")
        word = line.rsplit(b" ", D)[0] if spaces > D else line.partition(b" ")[0]
        # A word may hold spaces, but what ends in a number is a row that is too long.
        if spaces < D or _numbers_at_the_end_of(word):
            raise ValueError(
                f"{place(i)}: {line[:40]!r} ... has {spaces} spaces. Expected a word and {D} "
                "numbers, with one space between them."
            )
        words.append(word)
        numbers.append(line[len(word) + 1 :])
    return _Block(_decoded(b"\n".join(words), b"\n", file.errors, place), rows, place)


def _parsed(lines: list[bytes], D: int) -> np.ndarray:
    """The numbers in lines of D each."""
    with np.errstate(over="ignore"):  # 1e99 becomes infinite, and infinite ones are refused later
        rows = np.loadtxt(lines, np.float32, comments=None, delimiter=" ", ndmin=2)
    if rows.shape != (len(lines), D):
        raise ValueError(f"{rows.shape[1]} numbers")
    return rows


def _numbers_at_the_end_of(line: bytes) -> int:
    """How many numbers (or nothing, between two spaces) end a line, its first part aside."""
    number = 0
    for part in reversed(line.split(b" ")[1:]):
        with contextlib.suppress(ValueError):
            float(part or 0)
            number += 1
            continue
        break
    return number


# --- Writing ----------------------------------------------------------------------------------


def _writable(words: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """The rows as float32, lowest byte first, if these and the words can be read back."""
    try:
        rows = np.asarray(rows)
    except (RuntimeError, TypeError) as error:  # PyTorch's say what to call: detach, cpu
        raise TypeError(f"rows do not become an array: {error}") from error
    if rows.dtype.kind not in "fiu":
        raise TypeError(f"rows hold {rows.dtype}: expected real numbers")
    if rows.ndim != 2 or len(rows) != len(words) or not 1 <= rows.shape[1] <= _MOST_NUMBERS:
        raise ValueError(
            f"rows have shape {rows.shape}, for {len(words)} words: expected "
            f"({len(words)}, D), D from 1 to {_MOST_NUMBERS:,}"
        )
    first: dict[str, int] = {}
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"word {i} is {word!r}, a {type(word).__name__}: expected a string")
        if not word or re.search(r"[\s\0]", word, re.ASCII):
            raise ValueError(f"word {i} is {word!r}: expected no white space, as in New_York")
        if first.setdefault(word, i) != i:
            raise ValueError(f"word {i}, {word!r}, is word {first[word]} too: expected each once")
        if len(word.encode()) > _LONGEST_WORD:  # a lone surrogate raises: UTF-8 has no bytes for it
            raise ValueError(f"word {i}, {word[:20]!r} ..., is over {_LONGEST_WORD:,} bytes long")
    with np.errstate(over="ignore"):
        rows = rows.astype("<f4", copy=False)
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        bad = int(finite.argmin())
        raise ValueError(f"the row of {words[bad]!r}, {bad}, is not finite in float32")
    return rows
