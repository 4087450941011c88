"""helpers.documentation on tiny packages made for the purpose; no large library is read."""

import gzip
import importlib
import os
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest

from helpers import documentation
from helpers.documentation import Sentence, sentences, split

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
    "not_utf8.py": b'"""This caf\xe9 cannot be decoded."""\n',
    "broken.py": '"""This file does not parse."""\ndef (:\n',
    "escapes.py": '"""An invalid \\escape makes the parser warn."""\nx = 1 is 1\n',
    "tests/test_it.py": '"""Tests are not read here."""\n',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package on sys.path; returns its folder."""

    def make(name="tinydocs", files=SOURCE):
        folder = tmp_path / "path" / name
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        importlib.invalidate_caches()
        return folder

    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("NN_EMBEDDING_CACHE", str(tmp_path / "cache"))
    return make


def texts(found):
    return [" ".join(sentence.words) for sentence in found]


def test_reads_each_kind_of_docstring_in_order(package):
    package()
    assert texts(sentences(["tinydocs"])) == [
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
    modules = {" ".join(words): (lib, mod) for lib, mod, words in sentences(["tinydocs"])}
    assert modules["small shapes for testing"] == ("tinydocs", "tinydocs")
    assert modules["an async function waits here"] == ("tinydocs", "tinydocs.b")
    # Said in a and in b: kept once, where it first stands.
    assert modules["a plain function doubles numbers"] == ("tinydocs", "tinydocs.a")


def test_source_is_not_imported_and_its_warnings_stay_inside(package):
    package()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentences(["tinydocs"])
    assert not any(name.startswith("tinydocs") for name in sys.modules)


def test_files_that_do_not_parse_are_counted(package, monkeypatch, capsys):
    package()
    monkeypatch.delenv("CI", raising=False)
    sentences(["tinydocs"])
    assert "unparsed=2" in capsys.readouterr().err


def test_no_bar_where_ci_is_set_or_none_is_wanted(package, monkeypatch, capsys):
    package()
    package("otherdocs")
    monkeypatch.delenv("CI", raising=False)
    sentences(["tinydocs"], progress=False)
    monkeypatch.setenv("CI", "true")
    sentences(["otherdocs"])
    assert capsys.readouterr().err == ""


def test_a_second_process_reads_the_same(package, monkeypatch, tmp_path):
    package()
    alone = sentences(["tinydocs"], cache=tmp_path / "alone")
    monkeypatch.setattr(documentation, "_SHARED_FROM", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    started = []
    start = documentation._start_helper
    monkeypatch.setattr(
        documentation, "_start_helper", lambda *a: started.append(start(*a)) or started[-1]
    )
    assert sentences(["tinydocs"], cache=tmp_path / "two") == alone
    assert started[0].returncode == 0
    # One that cannot start, or fails, costs time and nothing else.
    monkeypatch.setattr(documentation.sys, "executable", str(tmp_path / "no-such-python"))
    assert sentences(["tinydocs"], cache=tmp_path / "none") == alone
    assert started[1] is None


# --- The cache


def cache_files(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_the_cache_is_used(package, tmp_path, monkeypatch):
    package()
    first = sentences(["tinydocs"])
    assert len(cache_files(tmp_path)) == 1
    monkeypatch.setattr(documentation, "_read", None)
    assert sentences(["tinydocs"]) == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"not gzip at all",
        lambda raw: raw[:-30] + bytes(10) + raw[-20:],
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b"plain", b"false")),
    ],
    ids=["truncated", "empty", "foreign", "zeroed", "words changed"],
)
def test_a_damaged_cache_is_rebuilt(package, tmp_path, damage):
    package()
    first = sentences(["tinydocs"])
    (file,) = cache_files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert sentences(["tinydocs"]) == first
    assert file.read_bytes() == whole


def test_a_changed_package_or_reader_is_read_anew(package, tmp_path, monkeypatch):
    folder = package()
    sentences(["tinydocs"])
    (folder / "a.py").write_text('"""Now it says something new."""\n')
    assert "now it says something new" in texts(sentences(["tinydocs"]))
    assert len(cache_files(tmp_path)) == 2
    reader = tmp_path / "reader.py"
    reader.write_text("# another reader\n")
    monkeypatch.setattr(documentation, "__file__", str(reader))
    sentences(["tinydocs"])
    assert len(cache_files(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_warned_about(package, tmp_path):
    package()
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="NN_EMBEDDING_CACHE"):
        found = sentences(["tinydocs"], cache=tmp_path / "file" / "cache")
    assert len(found) == 17


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("NN_EMBEDDING_CACHE", raising=False)
    name = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    monkeypatch.setenv(name, str(tmp_path))
    assert documentation._default_cache() == tmp_path / "nn-embedding-course"


def script(code, tmp_path, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "path"), "CI": "1", **environment},
        cwd=documentation.DATA.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


HASHED = """
import hashlib
from helpers.documentation import sentences
print(hashlib.sha256(repr(sentences(["tinydocs"])).encode()).hexdigest())
"""


def test_parallel_writers_agree_and_leave_one_file(package, tmp_path):
    many = {
        f"m{i}.py": f'"""Module {"abcdefghij"[i % 10] * (i + 1)} of many."""' for i in range(90)
    }
    package(files=SOURCE | many)
    workers = [script(HASHED, tmp_path, PYTHONHASHSEED=str(seed)) for seed in (1, 2)]
    answers = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], answers
    assert answers[0] == answers[1]
    (file,) = cache_files(tmp_path)
    assert documentation._load("tinydocs", file) == sentences(["tinydocs"], progress=False)


def test_the_order_does_not_hang_on_the_hash_seed(package, tmp_path):
    package()
    answers = {
        script(HASHED, tmp_path, PYTHONHASHSEED=seed, NN_EMBEDDING_CACHE=str(tmp_path / seed))
        .communicate(timeout=60)[0]
        .strip()
        for seed in ("0", "7")
    }
    assert len(answers) == 1 and len(answers.pop()) == 64


# --- Libraries that are not there


def test_a_missing_library_is_warned_about(package):
    package()
    with pytest.warns(UserWarning, match="nosuchlib is not installed.*pip install nosuchlib"):
        found = sentences(["nosuchlib", "tinydocs"])
    assert {sentence.library for sentence in found} == {"tinydocs"}


def test_no_library_at_all():
    with (
        pytest.warns(UserWarning, match="not installed"),
        pytest.raises(ValueError, match="pip install nosuchlib"),
    ):
        sentences(["nosuchlib"])


def test_a_bare_string_is_refused():
    with pytest.raises(TypeError, match=r"\['numpy'\]"):
        sentences("numpy")


# --- NumPy and the standard library


def test_numpys_ufuncs_come_from_numpy_itself():
    words = {word for text in documentation._ufunc_texts() for s in split(text) for word in s}
    assert "sine" in words and ("trigonometric", "sine", "element", "wise") in split(np.sin.__doc__)


def test_the_ufuncs_are_numpys(monkeypatch):
    found = documentation._read("numpy", [], progress=False)
    assert Sentence("numpy", "numpy", ("trigonometric", "sine", "element", "wise")) in found


def test_the_standard_library_is_found_without_its_tests():
    files = documentation._sources(documentation._roots("python"))
    modules = [module for module, _ in files]
    assert {"json.decoder", "threading", "argparse"} <= set(modules)
    folders = {part for _, path in files for part in path.parts[:-1]}
    assert folders.isdisjoint({"tests", "idle_test", "site-packages"})


# --- From text to words


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


# --- Building data/


BUILT = "from helpers.documentation import build; build({out!r}, ['onedocs', 'twodocs'])"


def test_building_twice_gives_the_same_bytes(package, tmp_path):
    for name, thing in (("onedocs", "table"), ("twodocs", "graph")):
        said = ""
        for i in range(72):
            parts = f"part{'abcdefgh'[i % 8]} and side{'abcdefghi'[i % 9]}"
            said += f'def f{i}():\n    """The {thing} has {parts} and numpy and {name}."""\n'
        package(name, {"__init__.py": "", "m.py": said})
        package(name, {f"n{i}.py": said.replace("has", f"has word{i}") for i in range(12)})
    for seed in ("1", "2"):
        worker = script(BUILT.format(out=str(tmp_path / seed)), tmp_path, PYTHONHASHSEED=seed)
        answer = worker.communicate(timeout=60)[0]
        assert worker.returncode == 0, answer
    for name in ("docs_vocabulary.csv", "docs_bags.npz"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    built = documentation.bags(tmp_path / "1" / "docs_bags.npz")
    words, _ = documentation.vocabulary(tmp_path / "1" / "docs_vocabulary.csv")
    assert built.labels == ["onedocs", "twodocs"] and len(built) > 100
    counts = {test: np.bincount(built.label[built.test == test]) for test in (False, True)}
    assert all(len(set(count.tolist())) == 1 and count[0] > 0 for count in counts.values())
    assert words.index("numpy") not in built.ids  # it gives an answer away
    for bag, label in zip(built, built.label, strict=True):
        assert ("graph" in [words[i] for i in bag]) == bool(label)


def test_a_bag_is_kept_once_and_not_if_two_libraries_share_it():
    modules = [f"module{i}" for i in range(40)]
    held = next(m for m in modules if documentation.in_test(m))
    kept = next(m for m in modules if not documentation.in_test(m))
    words = "a b c d e f g h i j k l".split()
    found = [
        Sentence("one", kept, tuple("abcd")),
        Sentence("one", held, tuple("dcba")),  # the same bag again: it stays where it stood first
        Sentence("one", held, tuple("abch")),
        Sentence("two", kept, tuple("ijkl")),
        Sentence("two", held, tuple("abij")),
        Sentence("two", held, tuple("abc")),  # too few words
    ]
    assert sorted(documentation._choose(found, words, ["one", "two"])) == [
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
    assert documentation._choose(found, words, ["one", "two"]) == []


def test_the_readme_is_renewed_only_with_the_files(tmp_path):
    for name in ("docs_vocabulary.csv", "docs_bags.npz"):
        (tmp_path / name).write_text(name)
    readme = tmp_path / "README.md"
    readme.write_text("| docs_vocabulary.csv | 0 |\n| docs_bags.npz | 0 |\nBuilt on 0 from 0.\n")
    renew = partial(
        documentation.record,
        tmp_path,
        ("docs_vocabulary.csv", "docs_bags.npz"),
        {"Built on ": f"Built on 2 from {documentation.versions(['numpy'])}."},
    )
    renew()
    first = readme.read_text()
    assert f"from numpy {np.__version__}." in first and "| 0 |" not in first
    readme.write_text(first.replace("Built on 2", "Built on 1"))
    renew()
    assert "Built on 1" in readme.read_text()


def test_what_is_tested_on_is_left_out_wherever_it_stands():
    modules = [f"module{i}" for i in range(40)]
    held = next(m for m in modules if documentation.in_test(m))
    kept = next(m for m in modules if not documentation.in_test(m))
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
    assert documentation.outside_test(found, words, bags) == [trained_on, near]


def test_in_test_holds_out_about_a_fifth_of_the_modules():
    held = [documentation.in_test(f"package.module{i}") for i in range(2_000)]
    assert 300 < sum(held) < 500
    assert documentation.in_test("networkx.classes.graph") == documentation.in_test(
        "networkx.classes.graph"
    )
