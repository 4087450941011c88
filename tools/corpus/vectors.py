"""The course's own pretrained vectors, data/docs_word2vec.bin: how they are made.

gensim trains them on the sentences. The settings were chosen by one half of the questions of
`helpers.analogies`; data/README.md shows what else was tried.
"""

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from helpers import analogies, documentation, word2vec
from tools.corpus.build import outside_test
from tools.corpus.sentences import Sentence

NAME = "docs_word2vec.bin"
SETTINGS = {  # gensim's names: CBOW (sg=0) of 100 dimensions
    "sg": 0,
    "vector_size": 100,
    "window": 5,
    "negative": 10,
    "sample": 1e-3,
    "epochs": 30,
}
MIN_COUNT, MIN_MODULES = 5, 2
_NO_WORD = re.compile(r"[b-z]|([a-z])\1+|[ivx]{2,}")  # x, aaa, iii


def choose(text: Sequence[Sentence], vocabulary: Sequence[str]) -> list[str]:
    """The words of the vocabulary that get a row, in its order.

    They stand in the text `MIN_COUNT` times or more, and in `MIN_MODULES` modules or more: the
    neighbours of a word that one file alone uses say more of the file. Left out is what is no
    word: single letters but a, a letter repeated, roman numerals, and numbered names. These are
    told by their series: x1 has an x0 or an x2 beside it, float32 has no float1.
    """
    counts = Counter(word for sentence in text for word in sentence.words)
    places = {(sentence.module, word) for sentence in text for word in sentence.words}
    modules = Counter(word for _, word in places)
    known = set(vocabulary)
    return [
        word
        for word in vocabulary
        if counts[word] >= MIN_COUNT
        and modules[word] >= MIN_MODULES
        and not _NO_WORD.fullmatch(word)
        and not _is_numbered(word, known)
    ]


def _is_numbered(word: str, known: set[str]) -> bool:
    """Whether a word is a name and a digit, in a series that has 0 and 1, or 1 and 2."""
    name, digit = word[:-1], word[-1]
    if not (digit.isdigit() and name.isalpha()):
        return False
    return known.issuperset((f"{name}0", f"{name}1")) or known.issuperset((f"{name}1", f"{name}2"))


def train(text: Sequence[Sequence[str]], words: Sequence[str], seed: int = 1) -> np.ndarray:
    """Rows for `words`, float32 (V, D), trained by gensim on all of the text.

    The same text and seed give the same rows on the same machine: there is one worker, and
    nothing here depends on Python's hash of a string.
    """
    from gensim.models import Word2Vec  # here, since it may not be installed

    model = Word2Vec(text, min_count=MIN_COUNT, workers=1, seed=seed, **SETTINGS)
    return model.wv[words]


def build(folder: Path, found: Sequence[Sentence]) -> dict[str, str]:
    """Write docs_word2vec.bin into `folder`, by the vocabulary and bags there.

    Returns what data/README.md tells of it: the beginnings of lines, and what follows them.
    """
    vocabulary, _ = documentation.vocabulary(folder)
    text = outside_test(found, vocabulary, documentation.bags(folder))
    words = choose(text, vocabulary)
    print(f"training {len(words):,} vectors: about a minute", flush=True)
    rows = train([sentence.words for sentence in text], words)
    word2vec.save(folder / NAME, words, rows)
    length = sum(len(sentence.words) for sentence in text)
    trained = f"{datetime.date.today()} with gensim {version('gensim')}"
    told = {"Trained on ": f"{trained} on {len(text):,} sentences of {length:,} words."}
    for part in analogies.PARTS:
        told[f"- {part}: "] = str(analogies.score(words, rows, part))
    print(*(begin + rest for begin, rest in told.items()), sep="\n")
    return told
