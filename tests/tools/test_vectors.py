"""tools.corpus.vectors: which words get a row, and the same file twice."""

import os
import subprocess
import sys

import numpy as np
import pytest

from helpers import documentation, word2vec
from tools.corpus import vectors as pretraining
from helpers.documentation import Sentence


def test_which_words_get_a_row():
    words = "a i x float32 float64 x0 x1 x2 arg1 arg2 log2 ipv4 zzz iii mix rare local".split()
    text = [Sentence("lib", module, tuple(words[:-2])) for module in "m" * 4 + "n"]
    text += [Sentence("lib", module, ("rare",)) for module in "mmnn"]
    text += [Sentence("lib", "m", ("local", "outside"))] * 9
    chosen = pretraining.choose(text, words)
    assert chosen == ["a", "float32", "float64", "log2", "ipv4", "mix"]
    assert pretraining.choose(text, words[::-1]) == chosen[::-1]  # the vocabulary's order


def test_without_gensim_one_sentence_says_so_before_anything_is_done(tmp_path):
    code = (
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'gensim' else find(name, *a)\n"
        "runpy.run_module('tools.corpus.vectors', run_name='__main__')\n"
    )
    before = {path: path.stat().st_mtime_ns for path in documentation.DATA.iterdir()}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr.count("\n") == 1 and "gensim, which is not installed" in answer.stderr
    assert {path: path.stat().st_mtime_ns for path in documentation.DATA.iterdir()} == before


def test_building_twice_gives_the_same_bytes(tmp_path):
    """In two processes with other hashes of strings, as in two calls of make data."""
    pytest.importorskip("gensim")
    package = tmp_path / "path" / "onedocs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in range(12):
        said = [
            f"def f{i}():\n    '''The table {module} has part{'abcdefgh'[i % 8]} "
            f"and side{'abcdefghi'[(i + module) % 9]} in place{'abc'[i % 3]} always.'''\n"
            for i in range(90)
        ]
        (package / f"m{module}.py").write_text("".join(said))
    code = (
        "from helpers import documentation, pretraining\n"
        "documentation.build({0!r}, ['onedocs'])\npretraining.build({0!r}, ['onedocs'])\n"
    )
    built = []
    for seed in "12":
        out = tmp_path / seed
        out.mkdir()
        (out / "README.md").write_text("| docs_word2vec.bin | 0 |\nTrained on 0\n- kept: 0\n")
        environment = {"PYTHONHASHSEED": seed, "NN_EMBEDDING_CACHE": str(tmp_path / "cache")}
        environment |= {"PYTHONPATH": str(package.parent), "CI": "1"}
        answer = subprocess.run(
            [sys.executable, "-c", code.format(str(out))],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 0, answer.stderr
        built.append((out / "docs_word2vec.bin").read_bytes())
    assert built[0] == built[1]
    words, rows = word2vec.load(out / "docs_word2vec.bin")
    vocabulary, _ = documentation.vocabulary(out / "docs_vocabulary.csv")
    assert {"table", "parta", "sideb", "always"} <= set(words)
    assert words == [word for word in vocabulary if word in set(words)]
    assert rows.shape == (len(words), 100) and np.isfinite(rows).all() and rows.std() > 0
    record = (out / "README.md").read_text()
    assert "| 0 |" not in record and "with gensim 4" in record and "- kept: 0 of" in record
