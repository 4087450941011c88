"""The word2vec file formats: `load` reads a file of word vectors, `save` writes one.

A binary file is a line "V D", then V records: a word in UTF-8, a space, and D float32 of four bytes
each, the lowest byte first. word2vec's own tool ends a record with a newline, others do not. A text
file is the same first line, then V lines "word 0.1 -0.2 ..."; GloVe leaves the first line out.
Either may be packed by gzip. Source: word2vec.c in https://code.google.com/archive/p/word2vec

This module stands alone: take it to your own project. It needs NumPy, and shows a progress bar
where tqdm is installed. It opens no pickle, so no file that it reads can run code.

How it works: `_blocks` reads the header, decides between binary and text, and hands on to
`_binary_blocks` or `_text_blocks`, which cut the file into blocks of about two megabytes;
`_collect` copies the wanted rows from each.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import os
import re
import secrets
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_BLOCK = 1 << 21  # bytes: few enough to stay in the processor's cache until they are copied
_MOST_NUMBERS = 1_000_000  # the most numbers in a row
_LONGEST_WORD = 10_000  # bytes: how far we search for a word's end in a damaged file
_GZIP = 1032  # times its own size is the most that a gzip file unpacks to
_BAR_FROM = 20_000_000  # bytes: less is loaded before a bar would show
_HUGE = 1e32  # no trained vector has such a number; bytes that are no float32 often do

# How other files begin that people try to load, what they are, and what to do.
_ANEW = (
    "Open it with the library that wrote it and write it anew: in gensim with "
    "KeyedVectors.save_word2vec_format(path, binary=True), elsewhere with this module's save"
)
_OTHERS = [
    (rb"\x80[\0-\x05]", "a pickle, as gensim's own save makes", _ANEW),
    (rb"PK\x03\x04", "a zip, as torch.save, np.savez and downloads are", f"Unzip it. {_ANEW}"),
    (rb"\x93NUMPY", "a NumPy array, without words", _ANEW),
    (rb"\x89HDF", "an HDF5 file", _ANEW),
    (rb"\xba\x16\x4f\x2f", "a fastText model", "Its vectors are in the .vec file beside it"),
    (rb".{257}ustar", "a tar archive", "Unpack it by tar -xf, and load the file inside"),
    (rb"\x1f\x8b", "a file packed by gzip twice", "Unpack it once by gunzip"),
    (rb"BZh[1-9]", "a file packed by bzip2", "Unpack it by bunzip2"),
    (rb"\xfd7zXZ\0", "a file packed by xz", "Unpack it by unxz"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it by 7z x"),
    (rb"\x28\xb5\x2f\xfd", "a file packed by zstd", "Unpack it by unzstd"),
    (rb"Rar!\x1a\x07", "a rar archive", "Unpack it by unrar x"),
    (rb"version https://git-lfs", "a Git LFS pointer to the real file", "Fetch it by git lfs pull"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml|!--)", "a web page (HTML or XML)", "Download it again"),
    (rb"\xff\xfe|\xfe\xff|(\d\0)+ \0|(\0\d)+\0 ", "text in UTF-16", "Write it anew in UTF-8: "
     "Path(new).write_text(Path(old).read_text('utf-16'), 'utf-8')"),
]  # fmt: skip


def load(
    path: str | os.PathLike[str],
    words: Iterable[str] | None = None,
    binary: bool | None = None,
    errors: str = "strict",
    progress: bool | None = None,
    encoding: str = "utf-8",
    limit: int | None = None,
) -> tuple[list[str], np.ndarray]:
    """The words of a word2vec file and their rows.

    In text, a first line of two whole numbers is a header, always. Without one, the first line
    tells D. A word in text may hold spaces, as ". . ."; below a header also "windows 10".

    Args:
        path: the file. One packed by gzip is told by its first bytes.
        words: load the rows of these words only. Of the other rows the word is checked, the
            numbers are not.
        binary: whether the file is binary. Default: told by its first row; in doubt, text if
            the name ends in .txt, .vec, .txt.gz or .vec.gz.
        errors: for words that are not in `encoding`, as in bytes.decode: "strict", "replace",
            "ignore". word2vec's own tool can cut a long word in the middle of a letter.
        progress: whether to show a bar. Default: where loading takes more than a second. Where
            the environment variable CI is set there is none.
        encoding: of the words, such as "latin-1".
        limit: load the first rows only, this many at most. What follows is not read.

    Returns:
        The words, and their rows as float32 (number of words, D), in the file's order. With
        `words`, those of them that the file has, each once, in the order asked.

        Memory: that of what is returned and 10 bytes a word, and a few megabytes. Until the end,
        an eighth of the rows more for gzip and for text without a header; twice the rows for
        `words` and where words repeat. The file is read in blocks, never mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, or not what its header says; a word is not in
            `encoding`, a number not finite; it is another kind of file. Names the byte (after
            unpacking) or the line. Or an argument has a value that is not told above.
        TypeError: words is a single string, or one of them is no string.

    Warns:
        UserWarning: words repeat, and keep their first row; a word is empty, and kept; a number
            is over 1e32.
    """
    path, wanted = Path(path), _wanted(words)
    if errors not in ("strict", "replace", "ignore"):
        raise ValueError(f"errors is {errors!r}: expected 'strict', 'replace' or 'ignore'")
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}: expected a number of rows, 0 or more")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as stored, _bar(path, progress) as bar:
        file = _File(path.name, stored, encoding, errors, bar)
        try:
            found, rows, odd = _collect(file, *_blocks(file, binary, limit), wanted)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path.name}: damaged, or cut short: {error}") from error
        file.show()
    found, rows, repeats = _first_rows(found, rows)
    if repeats:
        odd.append(f"{len(repeats):,} rows repeat a word, such as {repeats[0]!r}. The first row "
                   "of each word is kept.")  # fmt: skip
    if "" in found:
        odd.append("one word is empty, and kept as ''. Was text split at single spaces?")
    for text in odd:
        warnings.warn(f"{path.name}: {text}", UserWarning, stacklevel=2)
    if wanted is None:
        return found, rows
    place = {word: i for i, word in enumerate(found)}
    found = [word for word in wanted if word in place]
    return found, rows[[place[word] for word in found]]


def save(
    path: str | os.PathLike[str],
    words: Sequence[str] | Mapping[str, int],
    rows: np.ndarray,
    binary: bool | None = None,
) -> None:
    """Write words and rows as gensim does, which gensim and word2vec's own tools read.

    A binary record has no newline after it. Text has the digits that give the same float32 back.
    The file is written whole or not at all: one that was there stays until then.

    Args:
        path: the file. It is packed by gzip if its name ends in .gz.
        words: V words, each once, without white space: readers cut there. Or a dictionary from
            each word to its row's number, 0 to V - 1.
        rows: (V, D) real numbers, in anything that numpy.asarray takes; stored as float32.
        binary: whether to write binary. Default: yes if the name ends in .bin or .bin.gz, no if
            in .txt, .vec, .txt.gz or .vec.gz; it must end in one of these.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a name, word, number or dictionary that cannot be written and read back.
        TypeError: words in no order, a word that is no string, or rows that are no real numbers.
    """
    path = Path(path)
    if binary is None and (binary := _binary_by_name(path.name)) is None:
        raise ValueError(f"{path.name}: let it end in .bin, .txt or .vec, or say which by binary=")
    words = _in_order(words)
    rows = _writable(words, rows)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it first")
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

    words: list[bytes]
    joined: bytes  # the words, and between them
    between: str  # a space in a binary file, a newline in text
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
    file: _File, blocks: Iterator[_Block], D: int, room: int, wanted: dict[str, None] | None
) -> tuple[list[str], np.ndarray, list[str]]:
    """The words and rows in the blocks, or those wanted, repeats among them; what to warn of."""
    words: list[str] = []
    rows = np.empty((room if wanted is None else 0, D), np.float32)
    encoded = {word.encode("utf-8", "surrogatepass") for word in wanted or ()}
    odd: list[str] = []
    for block in blocks:
        kept: Sequence[int]
        if wanted is None:
            names, kept = _decoded(file, block), np.arange(len(block.words))
        elif file.encoding == "utf-8" and _is_utf8(block.joined):  # most words stay bytes: faster
            kept = [i for i, word in enumerate(block.words) if word in encoded]
            names = [block.words[i].decode() for i in kept]
        else:
            names = _decoded(file, block)
            kept = [i for i, word in enumerate(names) if word in wanted]
            names = [names[i] for i in kept]
        if not len(kept):
            continue
        start, end = len(words), len(words) + len(kept)
        if end > len(rows):  # nothing else looks at these rows, so they may move
            rows.resize((max(end, len(rows) * 9 // 8), D), refcheck=False)
        rows[start:end] = block.rows(kept)
        added = rows[start:end]
        most = np.inf if odd else _HUGE
        if not max(added.max(), -added.min()) < most:  # NaN is not less either
            odd = [_odd_number(block, kept, names, added)]
        words += names
    rows.resize((len(words), D), refcheck=False)
    return words, rows, odd


def _odd_number(block: _Block, kept: Sequence[int], names: list[str], rows: np.ndarray) -> str:
    """What to warn of where a number is huge. One that is not finite raises."""
    finite = np.isfinite(rows)
    sizes = np.where(finite, np.abs(rows), np.inf)
    bad, column = np.unravel_index(sizes.argmax(), rows.shape)
    what = f"the row of {names[bad]!r} holds {rows[bad, column]}, at {column}"
    if finite.all():
        return f"{what}, and trained vectors have no such numbers. Is the file damaged?"
    raise ValueError(f"{block.place(kept[bad])}: {what}. Expected finite numbers. Is the file "
                     "damaged, or its header wrong?")  # fmt: skip


def _first_rows(words: list[str], rows: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    """Words and rows without the repeats, and the repeated words."""
    # Equal words have equal hashes. A million hashes take 8 MB, a set of the words over 30.
    hashes = np.fromiter(map(hash, words), np.int64, len(words))
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():
        return words, rows, []
    first: dict[str, int] = {}
    repeats = [word for i, word in enumerate(words) if first.setdefault(word, i) != i]
    return list(first), rows[list(first.values())], repeats


# --- A file and its header --------------------------------------------------------------------


class _File:
    """A file that is read from front to back, and unpacked on the way if it is packed."""

    def __init__(self, name: str, stored: BinaryIO, encoding: str, errors: str, bar: Any) -> None:
        try:
            if "a 1\n".encode(encoding) != b"a 1\n":
                raise LookupError("spaces and digits are not those of ASCII")
        except LookupError as error:
            raise ValueError(f"encoding is {encoding!r}: {error}. Expected utf-8, latin-1 or the "
                             "like; else write the file anew in UTF-8") from error  # fmt: skip
        self.name, self.stored, self.bar = name, stored, bar
        self.encoding, self.errors = codecs.lookup(encoding).name, errors
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


def _blocks(
    file: _File, binary: bool | None, limit: int | None
) -> tuple[Iterator[_Block], int, int]:
    """A file's blocks, D, and the number of rows to make room for before they come."""
    start = file.data.read(1 << 16)
    first = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
    for magic, what, remedy in _OTHERS:
        if re.match(magic, start[first:], re.DOTALL):
            raise ValueError(f"{file.name} looks like {what}, not like word2vec. {remedy}.")
    header = re.match(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,18})[ \t]*\r?(?:\n|\Z)", start[first:])
    first += header.end() if header else 0
    file.data.seek(first)
    line = file.data.readline(_LONGEST_WORD + 32 * _MOST_NUMBERS).rstrip(b" \r\n")
    numbers = _numbers_at_the_end_of(line)
    odd_bytes = bool(re.search(rb"[\0-\x08\x0e-\x1f]", start[first : first + 4096]))
    if header:
        V, D = int(header[1]), int(header[2])
    else:
        V, D = None, 0 if odd_bytes else numbers
    if not 1 <= D <= _MOST_NUMBERS:
        raise ValueError(f"{file.name}, line 1: it begins with {start[:40]!r}. Expected two whole "
                         f"numbers, V and D, D from 1 to {_MOST_NUMBERS:,}; or, in text, a word "
                         "and its numbers.")  # fmt: skip
    # Text has numbers at the end of a line, float32 have bytes that no text has.
    is_text = numbers >= min(D, 2)
    is_binary = odd_bytes and not is_text
    if binary is None:
        doubt = not is_text and not is_binary
        binary = is_binary or (doubt and _binary_by_name(file.name) is not False)
    elif (binary and is_text) or (not binary and is_binary):
        raise ValueError(f"{file.name}: you say binary={binary}, but its first row is "
                         f"{'text' if is_text else 'binary'}: {line[:40]!r}. Leave binary= out, "
                         "and the file decides.")  # fmt: skip
    room = 0 if V is None else V if limit is None else min(V, limit)
    least = room * (4 * D + 2) if binary else room * 2 * (D + 1) - 1
    if least > file.most:
        raise ValueError(f"{file.name}, line 1: the header promises {V} words with {D} numbers. "
                         f"Expected {least} bytes at the least, and at most {file.most} are "
                         "there. Is it cut short?")  # fmt: skip
    file.data.seek(first)
    read = _binary_blocks(file, V, D, first, room) if binary else _text_blocks(file, V, D, limit)
    return read, D, 0 if file.packed else room


def _is_utf8(words: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return words.decode() is not None
    return False


def _decoded(file: _File, block: _Block) -> list[str]:
    """A block's words as strings."""
    with contextlib.suppress(UnicodeDecodeError):  # one call for all, if it can be
        names = block.joined.decode(file.encoding).split(block.between)
        if len(names) == len(block.words):
            return names
    names = []
    for i, word in enumerate(block.words):
        try:
            names.append(word.decode(file.encoding, file.errors))
        except UnicodeDecodeError as error:
            remedy = "Is the file in another encoding? Name it, as in encoding='latin-1'."
            if error.reason == "unexpected end of data":
                remedy = "It ends within a letter: errors='replace' reads such words."
            elif block.between == "\n":
                remedy += " Or errors='replace' reads such words with a mark in them."
            elif i:
                remedy += (f" Or does the word before it, {block.words[i - 1]!r}, hold a space, "
                           "which a binary file cannot tell; or is the header wrong?")  # fmt: skip
            raise ValueError(f"{block.place(i)}: the word {word[:40]!r} is not "
                             f"{file.encoding.upper()} ({error.reason}). {remedy}"
                             ) from None  # fmt: skip
    return names


# --- Binary -----------------------------------------------------------------------------------


def _binary_blocks(file: _File, V: int, D: int, start: int, limit: int) -> Iterator[_Block]:
    """The blocks of a binary file's first `limit` rows, which begin at byte `start`.

    A block is gone when the next one is asked for: all of them share one piece of memory.
    """
    size, left, filled = 4 * D, limit, 0
    memory = bytearray(max(_BLOCK, 2 * (_LONGEST_WORD + size)))
    row = re.compile(rb"(?s) .{%d}" % size)  # and the space before it
    while left:
        more = file.read_into(memoryview(memory)[filled:])
        filled += more
        if not more:
            raise ValueError(f"{file.name}, byte {start + filled}: the file ends in row "
                             f"{limit - left + 1} of {V}. Expected all of them. Is it cut short, "
                             "or the header wrong?")  # fmt: skip
        words = row.split(memoryview(memory)[:filled])[:-1][:left]  # what is between the rows
        number = len(words)
        joined = b" ".join(words)
        spaces = np.append(np.flatnonzero(np.frombuffer(joined, np.uint8) == ord(" ")), len(joined))
        rows = spaces[:number] + 1 + size * np.arange(number)  # where they begin in memory
        places = np.append(0, rows + size)  # where the words do, and at last what is left over
        longest = np.append(rows - 1, filled - 1 - size if number < left else 0) - places
        if (longest > _LONGEST_WORD).any():
            raise ValueError(f"{file.name}, byte {start + places[longest.argmax()]}: no space in "
                             f"the next {_LONGEST_WORD:,} bytes. Expected a word and a space. Is "
                             "the header wrong?")  # fmt: skip
        if number:
            yield _binary_block(file, words, joined, start + places, rows, memory, size)
            used = int(places[-1])
            left, start, filled = left - number, start + used, filled - used
            memory[:filled] = memory[used : used + filled]
    extra = bytes(memory[: min(filled, 40)]) + file.data.read(2)
    if limit == V and extra not in (b"", b"\n"):
        raise ValueError(f"{file.name}, byte {start}: {extra!r} follows row {V}, the last by the "
                         "header. Expected the end of the file. Is the header wrong?"
                         )  # fmt: skip


def _pieces(memory: bytearray, places: np.ndarray, size: int) -> np.ndarray:
    """Copies of `size` bytes from each of the places on, (number of places, size)."""
    each = np.ndarray((len(memory) - size + 1,), f"V{size}", memory, strides=(1,))
    return each[places].view(np.uint8).reshape(len(places), size)


def _binary_block(
    file: _File, words: list[bytes], joined: bytes, places: np.ndarray,
    rows: np.ndarray, memory: bytearray, size: int,
) -> _Block:  # fmt: skip
    """The block of words, joined by spaces too, at `places`; their rows begin at memory[rows]."""
    if b"\n" in joined:  # those that end the rows before
        joined = joined.replace(b" \n", b" ").removeprefix(b"\n")
        words = joined.split(b" ")
    block = _Block(words, joined, " ", lambda kept: _pieces(memory, rows[kept], size).view("<f4"),
                   lambda i: f"{file.name}, byte {places[i]}")  # fmt: skip
    _check_spaces(file, block, _pieces(memory, rows, min(32, size)))
    if b"\n" in joined:
        i, word = next((i, word) for i, word in enumerate(words) if b"\n" in word)
        raise ValueError(f"{block.place(i)}: the word {word[:40]!r} has a newline in it. Expected "
                         "a word and a space. Is the file damaged, or its header wrong?"
                         )  # fmt: skip
    return block


def _check_spaces(file: _File, block: _Block, heads: np.ndarray) -> None:
    """Refuse a word with a space in it, told by the first bytes of the rows.

    Of "New York" and its row, "New" would be the word, and "York " begin the row. Such a row begins
    with text and a space, as few do by chance, and not all of its numbers have a usual size. Moved
    by 1 to 3 bytes, most are huge or tiny; by 4, the space makes one of about 1e-19.
    """
    ends = (heads <= ord(" ")).argmax(1)  # of the text; 0 where there is none
    some = np.flatnonzero((ends > 0) & (heads[np.arange(len(heads)), ends] == ord(" ")))
    numbers = np.abs(heads[some].view("<f4"))
    calm = (numbers < 1e15) & ((numbers > 1e-15) | (numbers == 0))
    for i in some[~calm.all(1)].tolist():
        text = re.match(rb"(?:[^\0-\x20]+ )+", heads[i].tobytes())[0]
        words = block.words[: i + 1]
        try:
            text.split(b" ")[0].decode(file.encoding)
        except UnicodeDecodeError:  # numbers that look like text by chance
            continue
        _decoded(file, block._replace(words=words, joined=b" ".join(words)))  # or raises
        raise ValueError(f"{block.place(i)}: after the word {words[-1]!r} stand {text!r} and "
                         "numbers that make no sense. Does the word hold a space, which a binary "
                         "file cannot tell? Write it anew with _ for the space, as New_York, or as "
                         "text (in gensim binary=False). Or is the header wrong?")  # fmt: skip


# --- Text -------------------------------------------------------------------------------------


def _text_blocks(file: _File, V: int | None, D: int, limit: int | None) -> Iterator[_Block]:
    """The blocks of a text file's first `limit` rows. A header is read before."""
    longest = _LONGEST_WORD + 32 * D  # bytes of a line

    def read() -> Iterator[tuple[int, bytes]]:
        each = iter(lambda: file.data.readline(longest), b"")
        for number, line in enumerate(each, 1 if V is None else 2):
            if len(line) == longest and not line.endswith(b"\n"):
                raise ValueError(f"{file.name}, line {number}: over {longest} bytes. Expected a "
                                 f"word and {D} numbers. Is the file binary?")  # fmt: skip
            if line.strip():
                yield number, line.rstrip(b" \r\n")

    lines, seen = islice(read(), limit), 0
    while part := list(islice(lines, max(1, _BLOCK // (8 * D)))):
        file.show()
        if V is not None and seen + len(part) > V:
            raise ValueError(f"{file.name}, line {part[V - seen][0]}: a word more than the {V} of "
                             "the header. Expected the end of the file. Is the header wrong?"
                             )  # fmt: skip
        seen += len(part)
        yield _text_block(file, part, D, V is not None)
    if V is not None and seen < (V if limit is None else min(V, limit)):
        raise ValueError(f"{file.name}, line {seen + 2}: the file ends after {seen} words. "
                         f"Expected {V}, by its header. Is it cut short, or the header wrong?"
                         )  # fmt: skip


def _text_block(file: _File, lines: list[tuple[int, bytes]], D: int, header: bool) -> _Block:
    """The words and rows of numbered lines. Below a header D is known, and a word any text."""

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

    words, numbers, longer = [], [], 0
    for i, (_, line) in enumerate(lines):
        spaces = line.count(b" ")
        word = line.rsplit(b" ", D)[0] if spaces > D else line.partition(b" ")[0]
        longer += spaces > D and _numbers_at_the_end_of(word) > 0
        if spaces < D or word.endswith(b" ") or (longer and not header):
            remedy = "" if header else " If the word ends in a number, put a line 'V D' on top."
            raise ValueError(f"{place(i)}: {line[:40]!r} ... has {spaces} spaces. Expected a word "
                             f"and {D} numbers, with one space between them.{remedy}"
                             )  # fmt: skip
        words.append(word)
        numbers.append(line[len(word) + 1 :])
    if longer == len(lines) > 1 and lines[0][0] == 2:
        raise ValueError(f"{place(0)}: {lines[0][1][:40]!r} ... has over {D} numbers, as all lines "
                         "here have. Is the header wrong?")  # fmt: skip
    return _Block(words, b"\n".join(words), "\n", rows, place)


def _parsed(lines: list[bytes], D: int) -> np.ndarray:
    """The numbers in lines of D each."""
    with np.errstate(over="ignore"):  # 1e99 becomes infinite, and infinite ones are refused later
        rows = np.loadtxt(lines, np.float32, comments=None, delimiter=" ", ndmin=2)
    if rows.shape != (len(lines), D):
        raise ValueError(f"{rows.shape[1]} numbers")
    return rows


def _numbers_at_the_end_of(line: bytes) -> int:
    """How many numbers (or nothing, between two spaces) end a line, its first part aside."""
    number = re.compile(rb"([-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf))?", re.IGNORECASE)
    parts = line.split(b" ")[:0:-1]
    return next((i for i, part in enumerate(parts) if not number.fullmatch(part)), len(parts))


# --- Writing ----------------------------------------------------------------------------------


def _in_order(words: Sequence[str] | Mapping[str, int]) -> Sequence[str]:
    """The words in the order of their rows."""
    if isinstance(words, (str, bytes, set, frozenset)):
        raise TypeError(f"words is a {type(words).__name__}: expected a list, in the rows' order")
    if not isinstance(words, Mapping):
        return words
    by_row = {row: word for word, row in words.items()}
    if by_row.keys() != set(range(len(words))):
        raise ValueError(f"words is a dictionary, but not to the rows 0 to {len(words) - 1}, each "
                         "once: expected that, or a list in the rows' order")  # fmt: skip
    return [by_row[row] for row in range(len(words))]


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
