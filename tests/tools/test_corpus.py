"""tools.corpus on tiny packages made for the purpose; no large library is read."""

import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers import documentation, word2vec
from tools.corpus import __main__ as corpus
from tools.corpus import build, docstrings, vectors
from tools.corpus.sentences import Sentence, read, split

SOURCE = {
    "__init__.py": '"""Small shapes for testing.\n\nThe second sentence stands alone."""\n',
    "b.py": '''
"""Module docstring of b."""
import textwrap

def plain(x):
    """A plain function doubles numbers.

    >>> plain(secretinput)
    secretoutput
    """
    async def inner():
        """An async function waits here."""

class Box:
    """A class holds many things."""
    if True:
        def method(self):
            """The method stands under a condition."""

Box.__doc__ = r"""Assigned texts count as well.""" + Box.__doc__

add_docstr(plain, r"""
plain(x) -> int

Docs with {input} placeholders are formatted, and {{brackets}} stay.
""".format(input="x") + "Parts that are added belong together.")
torch._C._add_docstr(plain, f"An f-string keeps {plain} its constant parts.")
add_newdoc("pkg.core", "Box", ("attr", textwrap.dedent("""An attribute has its text too.""")))
add_newdoc("pkg.core", "Box", [("one", "The first of a list."), ("two", "The second of a list.")])
other_call("This call documents nothing at all.")
"a bare string documents nothing at all"
''',
    "a.py": '''
"""Module docstring of a."""
def f():
    """A plain function doubles numbers."""
''',
    "latin.py": '# -*- coding: latin-1 -*-\n"""The café is read by its cookie."""\n'.encode(
        "latin-1"
    ),
    "escapes.py": '"""An invalid \\escape makes the parser warn."""\nx = 1 is 1\n',
    "tests/test_it.py": '"""Tests are not read here."""\n',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package on sys.path, of version 1; returns the folder it is in."""
    path = tmp_path / "path"

    def make(name="tinydocs", files=SOURCE):
        for file, text in {f"{name}/{key}": text for key, text in files.items()}.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        (path / f"{name}-1.dist-info").mkdir(exist_ok=True)
        (path / f"{name}-1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        importlib.invalidate_caches()
        return path

    monkeypatch.syspath_prepend(path)
    return make


# --- From libraries to sentences


def texts(found):
    return [" ".join(sentence.words) for sentence in found]


def test_reads_each_kind_of_docstring_in_order(package):
    package()
    assert texts(read(["tinydocs"])) == [
        "small shapes for testing",
        "the second sentence stands alone",
        "module docstring of a",
        "a plain function doubles numbers",
        "module docstring of b",
        "an async function waits here",
        "a class holds many things",
        "the method stands under a condition",
        "assigned texts count as well",
        "docs with placeholders are formatted and stay",
        "parts that are added belong together",
        "an f string keeps its constant parts",
        "an attribute has its text too",
        "the first of a list",
        "the second of a list",
        "an invalid makes the parser warn",
        "the cafe is read by its cookie",
    ]


def test_each_sentence_knows_library_and_module(package):
    package()
    modules = {" ".join(words): (lib, mod) for lib, mod, words in read(["tinydocs"])}
    assert modules["small shapes for testing"] == ("tinydocs", "tinydocs")
    assert modules["an async function waits here"] == ("tinydocs", "tinydocs.b")
    # Said in a and in b: kept once, where it first stands.
    assert modules["a plain function doubles numbers"] == ("tinydocs", "tinydocs.a")


def test_source_is_not_imported_and_its_warnings_stay_inside(package):
    package()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(["tinydocs"])
    assert not any(name.startswith("tinydocs") for name in sys.modules)


def test_a_file_that_does_not_parse_is_named(package):
    package(files={"__init__.py": "", "broken.py": "def (:\n"})
    with pytest.raises(SyntaxError, match=r"broken\.py, line 1"):
        read(["tinydocs"])


def test_a_missing_library_is_named():
    with pytest.raises(ModuleNotFoundError, match="nosuchlib is not installed"):
        read(["nosuchlib"])


def test_numpys_ufuncs_are_read_from_numpy_itself(monkeypatch):
    monkeypatch.setattr(docstrings, "sources", lambda library: [])
    sine = Sentence("numpy", "numpy", ("trigonometric", "sine", "element", "wise"))
    assert sine in read(["numpy"])


def test_the_standard_library_is_found_without_its_tests():
    files = docstrings.sources("python")
    assert {"json", "json.decoder", "threading", "argparse"} <= {module for module, _ in files}
    folders = {part for _, path in files for part in path.parts[:-1]}
    assert folders.isdisjoint({"tests", "idle_test", "site-packages"})


def test_pytorchs_own_test_suite_is_left_out(package):
    names = ("__init__", "testing/a", "testing/_internal/b", "_internal/c")
    package(files={f"{name}.py": "" for name in names})
    assert [module for module, _ in docstrings.sources("tinydocs")] == [
        "tinydocs", "tinydocs._internal.c", "tinydocs.testing.a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Row-Major order of float32.", ["the row major order of float32"]),
        ("Sets padding_idx for an EmbeddingBag", ["sets padding idx for an embeddingbag"]),
        ("A 2-D array isn't a 1d array", ["a 2d array isn't a 1d array"]),
        ("One two three. Four five six! Only two", ["one two three", "four five six"]),
        ("Erdős–Rényi graphs of the matrix's rows", ["erdos renyi graphs of the matrix rows"]),
        ("Uses :math:`x^2 + 1` in :class:`~torch.nn.Linear` ", ["uses in torch nn linear"]),
        ("See `the guide <https://a.org/x>`_ at https://b.org/yz now", ["see the guide at now"]),
        ("Use ``dim`` but not ``x[0] + y`` here [1]_", ["use dim but not here"]),
        ("Either e.g. rows or i.e. columns", ["either rows or columns"]),
        ("Set it to $\\alpha + x$ or \\beta always", ["set it to or always"]),
        ("Title of it\n-----------\nText under the title", ["title of it", "text under the title"]),
        (
            "x : array of floats\n    The input array\n    goes on\ny : int, may be none",
            ["x array of floats", "the input array goes on", "y int may be none"],
        ),
        (
            "Args:\n    input (Tensor): the\n        tensor given\n    dim (int): where it cuts",
            ["input tensor the tensor given", "dim int where it cuts"],
        ),
        ("- the first point\n- the second point", ["the first point", "the second point"]),
        (
            "An example of it::\n\n    secret code here\n\nBack in text",
            ["an example of it", "back in text"],
        ),
        (".. code-block:: python\n\n    secret code is here\n\nBack in text", ["back in text"]),
        (".. note:: Keep this in mind", ["keep this in mind"]),
        (
            "Text before it\n\n>>> f(x)\nsome output of it\n\nText after it",
            ["text before it", "text after it"],
        ),
        (
            "relu(input, inplace=False) -> Tensor\n\nApplies it element wise",
            ["applies it element wise"],
        ),
        (
            ".. [1] Some author, A title of theirs\n   in a journal\n\nText after it",
            ["text after it"],
        ),
        ("====  ======\na     b c d\ne     f g h\n====  ======", ["a b c d", "e f g h"]),
        ("x = foo(bar)[0] + {a: b}", []),
        ("", []),
    ],
)
def test_split(text, wanted):
    assert [" ".join(words) for words in split(text)] == wanted


# --- From sentences to the vocabulary and bags


def test_sentences_and_vocabulary(tmp_path, capsys):
    found = [Sentence("one", "m", tuple("the row".split()))] * 4
    found += [Sentence("two", "m", tuple("a row of the table".split()))] * 5
    build.build(tmp_path, found)
    assert documentation.sentences(tmp_path) == [list(sentence.words) for sentence in found]
    words = ["row", "the", "a", "of", "table"]
    assert documentation.vocabulary(tmp_path) == (words, [9, 9, 5, 5, 5])
    assert "9 sentences of 33 words, a vocabulary of 5, 0 bags" in capsys.readouterr().out


def test_a_bag_is_kept_once_and_not_if_two_libraries_share_it():
    modules = [f"module{i}" for i in range(40)]
    held = next(m for m in modules if build.in_test(m))
    kept = next(m for m in modules if not build.in_test(m))
    words = "a b c d e f g h i j k l".split()
    found = [
        Sentence("one", kept, tuple("abcd")),
        Sentence("one", held, tuple("dcba")),  # the same bag again: it stays where it stood first
        Sentence("one", held, tuple("abch")),
        Sentence("two", kept, tuple("ijkl")),
        Sentence("two", held, tuple("abij")),
        Sentence("two", held, tuple("abc")),  # too few words
    ]
    assert sorted(build.choose(found, words, ["one", "two"])) == [
        ((0, 1, 2, 3), 0, False),
        ((0, 1, 2, 7), 0, True),
        ((0, 1, 8, 9), 1, True),
        ((8, 9, 10, 11), 1, False),
    ]
    # The same bag in another library: gone, and a class as small makes the other as small.
    found = [
        Sentence("one", kept, tuple("efgh")),
        Sentence("two", kept, tuple("hgfe")),
        Sentence("two", kept, tuple("ijkl")),
    ]
    assert build.choose(found, words, ["one", "two"]) == []


def test_a_hash_decides_which_bags_are_kept_and_their_order(monkeypatch):
    monkeypatch.setattr(build, "TRAIN_BAGS", 5)
    modules = [module for module in "abcdefghijklmnop" if not build.in_test(module)]
    words = [*modules, "x", "y", "z"]
    found = [Sentence("one", module, (module, "x", "y", "z")) for module in modules]
    kept = [bag for bag, _, _ in build.choose(found, words, ["one"])]
    x = len(modules)
    assert kept == sorted([(i, x, x + 1, x + 2) for i in range(x)], key=build._hash_order)[:5]
    assert kept != sorted(kept)


def test_what_is_tested_on_is_left_out_wherever_it_stands():
    modules = [f"module{i}" for i in range(40)]
    held = next(m for m in modules if build.in_test(m))
    kept = next(m for m in modules if not build.in_test(m))
    words = "a b c d e f numpy".split()
    bags = documentation.Bags(
        ids=np.array([0, 1, 2, 3, 0, 1, 4, 5]),
        offsets=np.array([0, 4, 8]),
        label=np.array([0, 0]),
        test=np.array([True, False]),
        labels=["one"],
    )
    in_held = Sentence("one", held, tuple("abef"))
    copy = Sentence("two", kept, (*"dcba", "a", "numpy", "unknown"))  # another order, a word more
    trained_on = Sentence("one", kept, tuple("abef"))
    near = Sentence("one", kept, tuple("abcde"))
    found = [in_held, copy, trained_on, near]
    assert build.outside_test(found, words, bags) == [trained_on, near]


def test_in_test_holds_out_about_a_fifth_of_the_modules():
    held = [build.in_test(f"package.module{i}") for i in range(2_000)]
    assert 300 < sum(held) < 500
    modules = ["networkx.classes.graph", "numpy", "json.decoder", "torch.functional"]
    assert [module for module in modules if build.in_test(module)] == modules[:1]  # for good


# --- Vectors


def test_which_words_get_a_row():
    words = "a i x float32 float64 x0 x1 x2 arg1 arg2 log2 ipv4 zzz iii mix rare local".split()
    text = [Sentence("lib", module, tuple(words[:-2])) for module in "m" * 4 + "n"]
    text += [Sentence("lib", module, ("rare",)) for module in "mmnn"]
    text += [Sentence("lib", "m", ("local", "outside"))] * 9
    chosen = vectors.choose(text, words)
    assert chosen == ["a", "float32", "float64", "log2", "ipv4", "mix"]
    assert vectors.choose(text, words[::-1]) == chosen[::-1]  # the vocabulary's order


# --- All of it


def test_without_gensim(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="gensim, which is not installed"):
        corpus.main(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


README = """
| docs_sentences.txt.xz | 0 |
| docs_vocabulary.csv | 0 |
| docs_bags.npz | 0 |
| docs_word2vec.bin | 0 |
Built on 0
Trained on 0
- kept: 0
"""


def test_building_twice_gives_the_same_bytes(package, tmp_path):
    """In two processes with other hashes of strings, as in two calls of make data."""
    pytest.importorskip("gensim")
    for name, thing in (("onedocs", "table"), ("twodocs", "graph")):
        said = ""
        for i in range(72):
            parts = f"part{'abcdefgh'[i % 8]} and side{'abcdefghi'[i % 9]}"
            said += f'def f{i}():\n    """The {thing} has {parts} and numpy and {name}."""\n'
        path = package(name, {"__init__.py": "", "m.py": said})
        package(name, {f"n{i}.py": said.replace("has", f"has word{i}") for i in range(12)})
    code = "import sys; from pathlib import Path; from tools.corpus.__main__ import main; "
    code += "main(Path(sys.argv[1]), ['onedocs', 'twodocs'])"
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "README.md").write_text(README)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / seed],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(path)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    out = tmp_path / "1"
    for name in (*build.NAMES, vectors.NAME):
        assert (out / name).read_bytes() == (tmp_path / "2" / name).read_bytes()

    words, _ = documentation.vocabulary(out)
    bags = documentation.bags(out)
    assert bags.labels == ["onedocs", "twodocs"] and len(bags) > 100
    counts = {test: np.bincount(bags.label[bags.test == test]) for test in (False, True)}
    assert all(len(set(count.tolist())) == 1 and count[0] > 0 for count in counts.values())
    assert words.index("numpy") not in bags.ids  # it gives an answer away
    for bag, label in zip(bags, bags.label, strict=True):
        assert ("graph" in [words[i] for i in bag]) == bool(label)

    names, rows = word2vec.load(out / vectors.NAME)
    assert {"table", "graph", "parta", "sideb", "has"} <= set(names)
    assert names == sorted(names, key=words.index)
    assert rows.shape == (len(names), 100) and np.isfinite(rows).all() and rows.std() > 0

    record = (out / "README.md").read_text()
    assert len(re.findall(r"^\| docs_\S+ \| [0-9a-f]{64} \|$", record, re.MULTILINE)) == 4
    assert re.search(r"^Built on \S+ from onedocs 1, twodocs 1\.$", record, re.MULTILINE)
    found = read(bags.labels)
    text = build.outside_test(found, words, bags)
    told = rf"^Trained on \S+ with gensim 4\S+ on {len(text):,} sentences of "
    assert len(text) < len(found) and re.search(told, record, re.MULTILINE)
    assert "- kept: 0 of" in record


def test_the_readme_is_renewed_only_with_the_files(tmp_path):
    (tmp_path / "docs_bags.npz").write_text("bags")
    readme = tmp_path / "README.md"
    readme.write_text("| docs_bags.npz | 0 |\nBuilt on 0 from 0.\n")
    corpus.record(tmp_path, ["docs_bags.npz"], {"Built on ": "2 from numpy 2."})
    first = readme.read_text()
    assert "Built on 2 from numpy 2.\n" in first and "| 0 |" not in first
    corpus.record(tmp_path, ["docs_bags.npz"], {"Built on ": "3 from numpy 3."})
    assert readme.read_text() == first
