"""Files of word vectors, made by hand for the tests of helpers.word2vec."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from helpers.word2vec import load

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


def damaged(at: int, new: bytes) -> bytes:
    """The binary file with bytes replaced from a place on."""
    data = binary()
    return data[:at] + new + data[at + len(new) :]


def refused(path: Path, **options) -> str:
    """What `load` says of a file that it does not load."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        load(path, **options)
    assert type(caught.value) is ValueError  # and no kind of it that says less
    return str(caught.value)
