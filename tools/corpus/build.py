"""The files that are built from the sentences: sentences, vocabulary, and bags of words.

The bags are labelled with their library and divided into some to train on and some held out.
"""

import csv
import hashlib
import lzma
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.documentation import Bags
from tools.corpus.sentences import Sentence

NAMES = ("docs_sentences.txt.xz", "docs_vocabulary.csv", "docs_bags.npz")
MIN_COUNT = 5  # a word that stands fewer times has no place in the vocabulary
BAG_WORDS = (4, 40)  # distinct known words in a bag
TRAIN_BAGS, TEST_BAGS = 3_600, 900  # for each library
_OWN_NAMES = re.compile(
    "torch|numpy|scipy|matplotlib|pyplot|pylab|sympy|networkx|python|(?:np|mpl|plt|nx)$"
)

Bag = tuple[int, ...]  # sorted ids


def build(folder: Path, found: Sequence[Sentence]) -> None:
    """Write the three files into `folder`."""
    text = "".join(" ".join(sentence.words) + "\n" for sentence in found)
    (folder / NAMES[0]).write_bytes(lzma.compress(text.encode()))

    counts = Counter(word for sentence in found for word in sentence.words)
    known = [(word, count) for word, count in counts.items() if count >= MIN_COUNT]
    known.sort(key=lambda item: (-item[1], item[0]))
    with (folder / NAMES[1]).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("word", "count"), *known])

    libraries = list(dict.fromkeys(sentence.library for sentence in found))
    chosen = choose(found, [word for word, _ in known], libraries)
    np.savez_compressed(
        folder / NAMES[2],
        ids=np.array([i for bag, _, _ in chosen for i in bag], dtype=np.uint16),
        offsets=np.cumsum([0] + [len(bag) for bag, _, _ in chosen], dtype=np.int32),
        label=np.array([label for _, label, _ in chosen], dtype=np.uint8),
        test=np.array([test for _, _, test in chosen], dtype=bool),
        labels=np.array(libraries),
    )
    print(f"{len(found):,} sentences of {counts.total():,} words, a vocabulary of {len(known):,}, "
          f"{len(chosen):,} bags", flush=True)  # fmt: skip


def in_test(module: str) -> bool:
    """Whether a module's sentences are held out: about one module in five, by a stable hash.

    By module, not by sentence: a module repeats itself in words that differ only a little.
    """
    return _stable(module) % 5 == 0


def outside_test(found: Sequence[Sentence], words: Sequence[str], bags: Bags) -> list[Sentence]:
    """The sentences of `found` that words may be learned from: none that the test bags hold.

    Left out are the sentences of held-out modules, and elsewhere those whose bag is a held-out
    one of `bags`, whose ids are places in `words`.
    """
    id_of = _ids(words)
    tested = {tuple(bag.tolist()) for bag in bags.part(test=True)}
    return [
        sentence
        for sentence in found
        if not in_test(sentence.module) and _bag(sentence.words, id_of) not in tested
    ]


def choose(
    found: Sequence[Sentence], words: Sequence[str], libraries: Sequence[str]
) -> list[tuple[Bag, int, bool]]:
    """(ids, label, test) for the bags that are kept: as many for each library, in hash order."""
    id_of = _ids(words)
    first: dict[Bag, tuple[str, bool]] = {}
    ambiguous = set()
    for library, module, sentence in found:
        bag = _bag(sentence, id_of)
        if BAG_WORDS[0] <= len(bag) <= BAG_WORDS[1]:
            # A bag met twice stays where it stood first, so none is on both sides.
            known_library, _ = first.setdefault(bag, (library, in_test(module)))
            if known_library != library:
                ambiguous.add(bag)
    groups: dict[tuple[str, bool], list[Bag]] = {
        (library, test): [] for library in libraries for test in (False, True)
    }
    for bag in first.keys() - ambiguous:
        groups[first[bag]].append(bag)
    chosen = []
    for test, wanted in ((False, TRAIN_BAGS), (True, TEST_BAGS)):
        size = min([wanted, *(len(groups[library, test]) for library in libraries)])
        for label, library in enumerate(libraries):
            kept = sorted(groups[library, test], key=_hash_order)[:size]
            chosen += [(bag, label, test) for bag in kept]
    return sorted(chosen, key=lambda item: _hash_order(item[0]))


def _ids(words: Sequence[str]) -> dict[str, int]:
    """The ids of the words that a bag may hold: not the libraries' own names."""
    return {word: i for i, word in enumerate(words) if not _OWN_NAMES.search(word)}


def _bag(words: Sequence[str], id_of: dict[str, int]) -> Bag:
    return tuple(sorted({id_of[word] for word in words if word in id_of}))


def _hash_order(bag: Bag) -> tuple[int, Bag]:
    return _stable(repr(bag)), bag


def _stable(text: str) -> int:
    """A hash that is the same in every process, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
