"""The documentation of seven libraries, frozen in data/: its sentences, vocabulary and bags.

The libraries are PyTorch, NumPy, SciPy, Matplotlib, SymPy, NetworkX and Python's own. The text is
that of their docstrings, as lower-case words; data/README.md says how the files were made.
"""

from __future__ import annotations

import csv
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Bags:
    """Bags of words with a label each: which library does this sentence document?

    Attributes:
        ids: int64 (T,), the bags end to end. An id is a row of the vocabulary; within a bag the
            ids are sorted and distinct.
        offsets: int64 (N + 1,). Bag i is ids[offsets[i]:offsets[i + 1]]; offsets[:-1] is what
            nn.EmbeddingBag takes.
        label: int64 (N,), a place in `labels`.
        test: bool (N,), whether the bag is held out: all of its module's sentences are.
        labels: the libraries' names.
    """

    ids: np.ndarray
    offsets: np.ndarray
    label: np.ndarray
    test: np.ndarray
    labels: list[str]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> np.ndarray:
        """The word ids of bag i, int64."""
        i = range(len(self))[i]  # an IndexError past the end ends a loop over the bags
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def part(self, test: bool) -> Bags:
        """The held-out bags or the others, as bags of their own."""
        kept = self.test == test
        sizes = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(sizes[kept])])
        ids = self.ids[np.repeat(kept, sizes)]
        return Bags(ids, offsets, self.label[kept], self.test[kept], self.labels)


def sentences(folder: Path = DATA) -> list[list[str]]:
    """The sentences of docs_sentences.txt.xz, each a list of its words, library by library."""
    with lzma.open(_present(folder / "docs_sentences.txt.xz"), "rt", encoding="utf-8") as file:
        return [line.split() for line in file]


def vocabulary(folder: Path = DATA) -> tuple[list[str], list[int]]:
    """The words of docs_vocabulary.csv, most frequent first, and their counts."""
    path = _present(folder / "docs_vocabulary.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [word for word, _ in rows], [int(count) for _, count in rows]


def bags(folder: Path = DATA) -> Bags:
    """The labelled bags of words of docs_bags.npz."""
    with np.load(_present(folder / "docs_bags.npz"), allow_pickle=False) as file:
        numbers = [file[name].astype(np.int64) for name in ("ids", "offsets", "label")]
        return Bags(*numbers, file["test"], file["labels"].tolist())


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Build it with: make data")
    return path
