"""The documentation of installed libraries, as sentences of lower-case words.

Real text with no download: `sentences()` reads the docstrings of the libraries that a reader has
on disk anyway. Their source is parsed, never imported. `vocabulary()` and `bags()` load the two
small files in data/ that were built from such sentences once, and that the lessons stand on;
`python -m helpers.documentation data` builds them anew.

What is a word: a run of letters and digits that begins with a letter, in lower case. Everything
else separates words, so `row-major` and `padding_idx` are two words each, while `float32`,
`arccos` and `EmbeddingBag` (as embeddingbag) stay whole. Accents are dropped. Two exceptions,
since they read as words: `1d`, `2d` ... (also written 2-D), and negations such as `doesn't`.
"""

from __future__ import annotations

import ast
import csv
import datetime
import gc
import gzip
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tqdm import tqdm

LIBRARIES = ("torch", "numpy", "scipy", "matplotlib", "sympy", "networkx")
DATA = Path(__file__).resolve().parent.parent / "data"


class Sentence(NamedTuple):
    """One sentence: the library and the module it documents, and its words in order."""

    library: str
    module: str
    words: tuple[str, ...]


def sentences(
    libraries: Sequence[str] = LIBRARIES,
    cache: str | Path | None = None,
    progress: bool = True,
) -> list[Sentence]:
    """Every sentence of three words or more in the documentation of `libraries`.

    Args:
        libraries: import names; "python" stands for the standard library.
        cache: the folder that keeps the sentences for the next call, one file a library.
            Default: the environment variable NN_EMBEDDING_CACHE, else nn-embedding-course in the
            user's cache folder.
        progress: show a progress bar while source is read (never where CI is set).

    Returns:
        The sentences in the order asked, then by file name, then as they stand in the source.
        A sentence that a library repeats is kept once, where it first stands.

    Raises:
        ValueError: none of the libraries is installed. One that is missing is only warned about.
    """
    if isinstance(libraries, str):
        raise TypeError(f"libraries is the string {libraries!r}: pass a list, [{libraries!r}]")
    folder = Path(cache) if cache is not None else _default_cache()
    found: list[Sentence] = []
    missing = []
    for library in dict.fromkeys(libraries):
        roots = _roots(library)
        if not roots:
            missing.append(library)
            warnings.warn(
                f"{library} is not installed, so its documentation is left out. "
                f"To have it: python -m pip install {library}",
                UserWarning,
                stacklevel=2,
            )
            continue
        found += _cached(library, roots, folder, progress)
    if not found:
        raise ValueError(
            f"no documentation to read in {list(libraries)}. Install at least one of the "
            f"libraries: python -m pip install {' '.join(missing or LIBRARIES)}"
        )
    return found


# --- Which files ------------------------------------------------------------------------------

# Tests are not documentation, and a vendored copy documents another library.
_SKIPPED_FOLDERS = {"tests", "test", "idle_test", "__pycache__", "_vendor", "site-packages"}
_SKIPPED_FOLDERS |= {"array_api_compat", "array_api_extra", "_vendored"}


def _roots(library: str) -> list[Path]:
    """A library's folders or single files; empty if it is not installed. Nothing is imported."""
    if library == "python":
        stdlib = Path(sysconfig.get_path("stdlib"))
        names = [stdlib / name for name in sorted(sys.stdlib_module_names) if name != "test"]
        places = [place if place.is_dir() else place.with_suffix(".py") for place in names]
        return [place for place in places if place.exists()]  # the rest is in the binary
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    return [Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)]


def _sources(roots: list[Path]) -> list[tuple[str, Path]]:
    """(module name, file) for each source file under `roots`, sorted."""
    files = []
    for root in roots:
        if root.is_file():
            files.append((root.stem, root))
            continue
        for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).parts):
            parts = path.relative_to(root).with_suffix("").parts
            in_tests = parts[:2] == ("testing", "_internal")  # PyTorch's own test suite
            if not in_tests and _SKIPPED_FOLDERS.isdisjoint(parts[:-1]):
                names = parts[:-1] if parts[-1] == "__init__" else parts
                files.append((".".join((root.name, *names)), path))
    return files


# --- From a file to its texts -----------------------------------------------------------------


def _texts(tree: ast.Module) -> Iterator[str]:
    """The documentation in a parsed file, in source order.

    Docstrings, what is assigned to a `__doc__`, and what is handed to add_docstr or add_newdoc.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Expr, ast.Assign)):
            yield from _handed_over(node)
            continue
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield docstring
        # Only statements hold further statements: not descending into expressions is most of
        # the speed. Reversed, since the stack is popped from its end.
        for field in ("finalbody", "orelse", "handlers", "cases", "body"):
            waiting.extend(reversed(getattr(node, field, ())))


def _handed_over(node: ast.Expr | ast.Assign) -> Iterator[str]:
    """The texts of `X.__doc__ = text` and of `add_docstr(x, text)`, however they are spelled."""
    call = node.value
    if isinstance(node, ast.Assign) and any(_name(target) == "__doc__" for target in node.targets):
        yield from _constants(node.value)
    elif isinstance(call, ast.Call) and re.search("add_?(doc|newdoc)", _name(call.func)):
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            yield from _constants(argument)


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _constants(node: ast.AST) -> list[str]:
    """The constant strings in an expression: parts that belong to one string are joined."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, (ast.Tuple, ast.List)):
        return [text for item in node.elts for text in _constants(item)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(text for part in node.values for text in _constants(part))]
    if isinstance(node, ast.BinOp):
        right = _constants(node.right) if isinstance(node.op, ast.Add) else []  # not "..." % x
        return ["".join(_constants(node.left) + right)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        # "...".format(...) holds its text before the dot, textwrap.dedent("...") as argument.
        inside = _constants(node.func.value)
        return inside or [text for item in node.args[:1] for text in _constants(item)]
    return []


def _ufunc_texts() -> Iterator[str]:
    """The docstrings of NumPy's ufuncs, which are in its binary and in no source file."""
    for _, value in sorted(vars(np).items()):
        if isinstance(value, np.ufunc) and value.__doc__:
            yield value.__doc__


def _read(library: str, files: list[tuple[str, Path]], progress: bool) -> list[Sentence]:
    """A library's sentences from its source; the bar counts the files that do not parse."""
    from tqdm.auto import tqdm  # here, since it is slow to import and a cached call needs none

    hidden = not progress or bool(os.environ.get("CI"))
    shared = len(files) >= _SHARED_FROM and (os.cpu_count() or 1) > 1
    own, other = (files[::2], files[1::2]) if shared else (files, [])
    bar = tqdm(total=len(files), desc=f"reading {library}", unit="file", disable=hidden)
    with bar, tempfile.TemporaryFile() as answer:
        helper = _start_helper(other, answer) if other else None
        try:
            texts = [""] * len(files)
            texts[:: 2 if shared else 1] = _read_files(own, bar)
            if other:
                texts[1::2] = _finish_helper(helper, other, answer, bar)
        finally:
            if helper is not None:
                helper.kill()
    first: dict[str, str] = {}  # sentence to module
    for (module, _), text in zip(files, texts, strict=True):
        for sentence in text.splitlines():
            first.setdefault(sentence, module)
    if library == "numpy":
        for text in _ufunc_texts():
            for words in split(text):
                first.setdefault(" ".join(words), "numpy")
    return [Sentence(library, module, tuple(text.split())) for text, module in first.items()]


def _read_files(files: Sequence[tuple[str, str | Path]], bar: tqdm | None = None) -> list[str]:
    """For each file its sentences, one a line; nothing for a file that does not parse."""
    texts = []
    unparsed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # source may warn as it is parsed: not our reader's
        for _, path in files:
            lines: list[str] = []
            try:
                for text in _texts(ast.parse(Path(path).read_bytes())):
                    lines += map(" ".join, split(text))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                unparsed += 1
            texts.append("\n".join(lines))
            if bar is not None:
                bar.update()
                if unparsed:
                    bar.set_postfix(unparsed=unparsed)
    return texts


# A second process reads every other file of a large library. It is a plain command and no
# process pool: a pool would run a reader's unguarded script again, or fork a threaded notebook.
_SHARED_FROM = 200  # files; for fewer the start is not worth it


def _start_helper(files: list[tuple[str, Path]], answer: IO[bytes]) -> subprocess.Popen | None:
    """A process that writes the sentences of `files` into `answer`; None if it cannot start."""
    command = [sys.executable, "-P", "-W", "ignore", __file__, "read"]
    try:
        helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=answer)
        with helper.stdin as pipe:
            pipe.write(json.dumps([(module, str(path)) for module, path in files]).encode())
    except (OSError, ValueError):
        return None
    return helper


def _finish_helper(
    helper: subprocess.Popen | None, files: list[tuple[str, Path]], answer: IO[bytes], bar: tqdm
) -> list[str]:
    """What the second process has read, or the same read here if it failed."""
    if helper is None or helper.wait() != 0:
        return _read_files(files, bar)
    bar.update(len(files))
    answer.seek(0)
    return json.loads(answer.read())


# --- From a text to its sentences -------------------------------------------------------------

_DROPPED_BODY = re.compile(  # directives whose body is code, a formula or a picture
    r"\.\. +(?:code|code-block|sourcecode|math|plot|image|figure|testcode|testsetup|testoutput|"
    r"doctest|ipython|literalinclude|autosummary|toctree|table|list-table|csv-table|index|"
    r"include|raw|graphviz|inheritance-diagram|productionlist|rubric|_[^:]*|\[[^\]]*\])(?:::?| |$)"
)
_DIRECTIVE = re.compile(r"\.\. +[\w:+-]+ *::")
_HEAD = re.compile(r"[*`\w][\w.*`, ()]*(?: :(?: |$)|: *$)|:\w+(?: [^:`]+)?: ")
_GOOGLE_HEAD = re.compile(r"[*`]*\w+`*(?: \([^)]*\))?(?:: | -+ )")
_BULLET = re.compile(r"(?:[-*+•]|\(?\w{1,2}[.)]|#\.) +")
_RULE = re.compile(r"[-=~^*#\"'+_.:|`\s<>/\\]+$")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)\s*(?:->.*)?$", re.DOTALL)


def split(text: str) -> list[tuple[str, ...]]:
    """The sentences of a docstring: tuples of three words or more; code and formulas dropped."""
    found = []
    for paragraph in _paragraphs(inspect.cleandoc(text)):
        for sentence in _SENTENCE_END.split(_plain(paragraph)):
            words = tuple(_WORD.findall(sentence))
            if len(words) >= 3 and not _is_code(sentence, words):
                found.append(words)
    return found


def _paragraphs(text: str) -> Iterator[str]:
    """Runs of lines that belong together, in one string each; code and its output left out."""
    lines: list[str] = []
    before = 0  # indentation of the line before
    block: int | None = None  # inside a dropped block: the indentation of the line that opens it
    doctest = table = False
    for line in [*text.split("\n"), ""]:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            doctest = table = False
            yield " ".join(lines)
            lines = []
            continue
        if block is not None and indent > block:
            continue
        block = None
        if doctest or stripped.startswith((">>>", "...  ", "In [", "$ ", "% ")):
            doctest = True
            continue
        if _DROPPED_BODY.match(stripped):
            block = indent
            continue
        if _RULE.match(stripped) or stripped.startswith(("|", "+-", "@", "```")):
            table = "= =" in re.sub(" +", " ", stripped)  # the rule of a table of columns
            yield " ".join(lines)
            lines = []
            continue
        if stripped.startswith("..") and (directive := _DIRECTIVE.match(stripped)):
            stripped = stripped[directive.end() :].strip()
            yield " ".join(lines)
            lines = []
        opens_entry = _HEAD.match(stripped) or _BULLET.match(stripped)
        if opens_entry or _GOOGLE_HEAD.match(stripped) or indent < before or table:
            yield " ".join(lines)
            lines = []
        lines.append(stripped)
        before = indent
        if stripped.endswith("::"):
            block = indent
        if _HEAD.match(stripped) and not stripped.endswith("-"):
            yield " ".join(lines)  # "x : array" is about the type, what follows about the meaning
            lines = []


# Each: a character that the pattern needs (looking for it first halves the time), the pattern,
# what stands in its place.
_INLINE = [
    ("`", re.compile(r":math:`[^`]*`"), " "),
    ("$", re.compile(r"\$\$?[^$]+\$\$?"), " "),
    ("\\", re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]"), " "),
    ("@", re.compile(r"\S+@\S+\.\w+"), " "),
    ("`", re.compile(r":[\w:+-]+:`[~!.]?([^`<]+?)(?: *<[^`]*>)?`"), r" \1 "),  # :class:`a <b>`
    ("<", re.compile(r"`([^`<]+?) *<[^`]*>`_*"), r" \1 "),  # `text <target>`_
    ("/", re.compile(r"<?\b(?:https?|ftp)://[^\s>`]+>?"), " "),
    ("]", re.compile(r"\[[#*\w]{1,12}\]_"), " "),  # a footnote
    ("|", re.compile(r"\|\w+\|_?"), " "),  # a substitution
    ("%", re.compile(r"%\(\w+\)[sdr]"), " "),
    ("{", re.compile(r"\{\w*\}"), " "),
    ("`", re.compile(r"``?((?:[^`]|(?<=\w)`(?=\w))+)``?"), lambda match: _code(match[1])),
    ("\\", re.compile(r"\\[a-zA-Z]+"), " "),  # \alpha outside a formula
    (".", re.compile(r"\b(?:e\.g|i\.e|et al|cf|resp|w\.r\.t|vs|etc|approx)\.(?= *\S)", re.I), " "),
    ("-", re.compile(r"\b(\d|[nN])-[dD]\b"), r" \1d "),
]
_CODE = re.compile(r"[\w.]+(?:\(\))?|\w+ ?= ?[\w.'\"-]+|[\"'][\w +-]*[\"']")
_SENTENCE_END = re.compile(r"[.!?][\"')\]*]*(?:\s+|$)|(?<=\w)[;]\s|\s--+\s")
_WORD = re.compile(r"(?<![a-z0-9])(?:[a-z]+n't|[1-9n]d|[a-z][a-z0-9]*)(?![a-z0-9])")


def _code(text: str) -> str:
    """Inline code: a name, `name=value` or 'a string' reads as words, an expression does not."""
    return f" {text} " if _CODE.fullmatch(text.strip()) else " "


def _plain(paragraph: str) -> str:
    """A paragraph in lower case without markup, accents and formulas; a signature becomes ''."""
    if _SIGNATURE.match(paragraph):
        return ""
    for needed, pattern, replacement in _INLINE:
        if needed in paragraph:
            paragraph = pattern.sub(replacement, paragraph)
    if not paragraph.isascii():
        paragraph = paragraph.replace("\u2019", "'")
        letters = unicodedata.normalize("NFKD", paragraph)
        paragraph = "".join(letter for letter in letters if not unicodedata.combining(letter))
    paragraph = paragraph.lower()
    return re.sub(r"'(?:s|re|ve|ll|d|m)\b", "", paragraph) if "'" in paragraph else paragraph


def _is_code(sentence: str, words: tuple[str, ...]) -> bool:
    """Whether a sentence has as many operators and brackets as words: unmarked code."""
    return len(re.findall(r"[=(){}\[\]<>^*/+|_&]", sentence)) >= len(words)


# --- The cache --------------------------------------------------------------------------------


def _default_cache() -> Path:
    chosen = os.environ.get("NN_EMBEDDING_CACHE")
    if chosen:
        return Path(chosen)
    name = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    return Path(os.environ.get(name) or Path.home() / ".cache") / "nn-embedding-course"


def _cache_file(library: str, roots: list[Path], folder: Path) -> Path:
    """A file name that changes with the library's version and with this reader."""
    version = _version(library)
    if version is None:  # a bare folder, without metadata: told by its files
        stats = [(name, path.stat()) for name, path in _sources(roots)]
        told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        version = "files" + hashlib.sha256(told.encode()).hexdigest()[:16]
    reader = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return folder / f"{library}-{version}-{reader}.txt.gz"


def _version(library: str) -> str | None:
    if library == "python":
        return ".".join(map(str, sys.version_info[:3]))
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cached(library: str, roots: list[Path], folder: Path, progress: bool) -> list[Sentence]:
    """The library's sentences from the cache, or read and then put there."""
    file = _cache_file(library, roots, folder)
    with _no_collector():
        found = _load(library, file)
        if found is None:
            found = _read(library, _sources(roots), progress)
            _store(found, file)
        return found


@contextmanager
def _no_collector() -> Iterator[None]:
    """Hold back the garbage collector: looking for cycles in what has none doubles the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _store(found: list[Sentence], file: Path) -> None:
    """Write a checksum and then one line a sentence; readers see the whole file or none."""
    body = "".join(f"{module}\t{' '.join(words)}\n" for _, module, words in found).encode()
    checksum = hashlib.sha256(body).hexdigest().encode()
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            temporary = Path(part.name)
            part.write(gzip.compress(checksum + b"\n" + body, compresslevel=5, mtime=0))
        os.replace(temporary, file)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        warnings.warn(
            f"the cache folder {file.parent} cannot be written ({error}), so the documentation "
            f"is read anew each time. Set NN_EMBEDDING_CACHE to a folder that can.",
            UserWarning,
            stacklevel=4,
        )


def _load(library: str, file: Path) -> list[Sentence] | None:
    """The sentences in a cache file; None if there is none or it is not what was written."""
    try:
        checksum, _, body = gzip.decompress(file.read_bytes()).partition(b"\n")
    except (OSError, EOFError, ValueError, gzip.zlib.error):
        return None
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    found = []
    for line in body.decode().splitlines():
        module, _, words = line.partition("\t")
        # intern: a word's thousand places share one string
        found.append(Sentence(library, sys.intern(module), tuple(map(sys.intern, words.split()))))
    return found


# --- What data/ holds -------------------------------------------------------------------------

LABELS = (*LIBRARIES, "python")
_MIN_COUNT = 5  # a word that stands fewer times has no place in the vocabulary
_BAG_WORDS = (4, 40)  # distinct known words in a bag
_TRAIN_BAGS, _TEST_BAGS = 3_600, 900  # for each library
_OWN_NAMES = re.compile(
    "torch|numpy|scipy|matplotlib|pyplot|pylab|sympy|networkx|python|(?:np|mpl|plt|nx)$"
)


@dataclass(frozen=True)
class Bags:
    """Bags of words with a label each: which library does this sentence document?

    Attributes:
        ids: int64 (T,), the bags end to end. An id is a row of the vocabulary; within a bag the
            ids are sorted and distinct.
        offsets: int64 (N + 1,). Bag i is ids[offsets[i]:offsets[i + 1]]; offsets[:-1] is what
            nn.EmbeddingBag takes.
        label: int64 (N,), a place in `labels`.
        test: bool (N,), whether the bag is held out; see `in_test`.
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


def vocabulary(path: str | Path | None = None) -> tuple[list[str], list[int]]:
    """The words of data/docs_vocabulary.csv, most frequent first, and their counts."""
    path = _present(path, "docs_vocabulary.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [word for word, _ in rows], [int(count) for _, count in rows]


def bags(path: str | Path | None = None) -> Bags:
    """The labelled bags of words of data/docs_bags.npz."""
    with np.load(_present(path, "docs_bags.npz"), allow_pickle=False) as file:
        numbers = [file[name].astype(np.int64) for name in ("ids", "offsets", "label")]
        return Bags(*numbers, file["test"], file["labels"].tolist())


def in_test(module: str) -> bool:
    """Whether a module's sentences are held out: about one module in five, by a stable hash.

    By module, not by sentence: a module repeats itself in words that differ only a little.
    """
    return _stable(module) % 5 == 0


def outside_test(
    found: Sequence[Sentence], words: Sequence[str] | None = None, held: Bags | None = None
) -> list[Sentence]:
    """The sentences of `found` that words may be learned from: none that the test bags hold.

    Left out are the sentences of held-out modules, and elsewhere those whose bag is a held-out
    one. Which bags are held out is asked of data/docs_bags.npz, unless `words` and bags are given.
    """
    words = vocabulary()[0] if words is None else words
    held = bags() if held is None else held
    id_of = _ids(words)
    tested = {tuple(bag.tolist()) for bag in held.part(test=True)}
    return [
        sentence
        for sentence in found
        if not in_test(sentence.module) and _bag(sentence.words, id_of) not in tested
    ]


def build(folder: str | Path = DATA, libraries: Sequence[str] = LABELS) -> None:
    """Write docs_vocabulary.csv and docs_bags.npz into `folder`; renew its README's record."""
    folder = Path(folder)
    found = sentences(libraries)
    counts = Counter(word for sentence in found for word in sentence.words)
    known = [(word, count) for word, count in counts.items() if count >= _MIN_COUNT]
    known.sort(key=lambda item: (-item[1], item[0]))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "docs_vocabulary.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("word", "count"), *known])
    chosen = _choose(found, [word for word, _ in known], list(libraries))
    np.savez_compressed(
        folder / "docs_bags.npz",
        ids=np.array([i for bag, _, _ in chosen for i in bag], dtype=np.uint16),
        offsets=np.cumsum([0] + [len(bag) for bag, _, _ in chosen], dtype=np.int32),
        label=np.array([label for _, label, _ in chosen], dtype=np.uint8),
        test=np.array([test for _, _, test in chosen], dtype=bool),
        labels=np.array(libraries),
    )
    print(f"{len(known):,} words, {len(chosen):,} bags in {folder}")
    made = f"Built on {datetime.date.today()} from {versions(libraries)}."
    record(folder, ("docs_vocabulary.csv", "docs_bags.npz"), {"Built on ": made})


def _choose(
    found: list[Sentence], words: list[str], libraries: list[str]
) -> list[tuple[tuple[int, ...], int, bool]]:
    """(ids, label, test) for the bags that are kept: as many for each library, in hash order."""
    id_of = _ids(words)
    if len(words) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(words)} words do not fit uint16: raise _MIN_COUNT")
    first: dict[tuple[int, ...], tuple[str, bool]] = {}
    ambiguous = set()
    for library, module, sentence in found:
        bag = _bag(sentence, id_of)
        if _BAG_WORDS[0] <= len(bag) <= _BAG_WORDS[1]:
            # A bag met twice stays where it stood first, so none is on both sides.
            known_library, _ = first.setdefault(bag, (library, in_test(module)))
            if known_library != library:
                ambiguous.add(bag)
    groups: dict[tuple[str, bool], list[tuple[int, ...]]] = {
        (library, test): [] for library in libraries for test in (False, True)
    }
    for bag in first.keys() - ambiguous:
        groups[first[bag]].append(bag)
    chosen = []
    for test, wanted in ((False, _TRAIN_BAGS), (True, _TEST_BAGS)):
        size = min([wanted, *(len(groups[library, test]) for library in libraries)])
        for label, library in enumerate(libraries):
            kept = sorted(groups[library, test], key=_hash_order)[:size]
            chosen += [(bag, label, test) for bag in kept]
    return sorted(chosen, key=lambda item: _hash_order(item[0]))


def _ids(words: Sequence[str]) -> dict[str, int]:
    """The ids of the words that a bag may hold: not the libraries' own names."""
    return {word: i for i, word in enumerate(words) if not _OWN_NAMES.search(word)}


def _bag(words: Sequence[str], id_of: dict[str, int]) -> tuple[int, ...]:
    return tuple(sorted({id_of[word] for word in words if word in id_of}))


def _hash_order(bag: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return _stable(repr(bag)), bag


def _stable(text: str) -> int:
    """A hash that is the same in every process, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _present(path: str | Path | None, name: str) -> Path:
    path = DATA / name if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Build it with: make data")
    return path


def versions(libraries: Sequence[str]) -> str:
    """Such as "numpy 2.4.6, python 3.11.7"."""
    return ", ".join(f"{library} {_version(library)}" for library in libraries)


def record(folder: Path, names: Sequence[str], lines: dict[str, str]) -> None:
    """Renew in the folder's README.md what it says of the files `names`, if one has changed.

    That is their checksums, and the line that begins with each key of `lines`.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return
    text = readme.read_text(encoding="utf-8")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    if all(checksum in text for checksum in sums.values()):
        return
    for name, checksum in sums.items():
        text = re.sub(rf"(\| {re.escape(name)} \| )\w+( \|)", rf"\g<1>{checksum}\g<2>", text)
    for begin, line in lines.items():
        text = re.sub(rf"^{re.escape(begin)}.*", lambda _, line=line: line, text, flags=re.M)
    readme.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["read"]:
        with _no_collector():
            json.dump(_read_files(json.load(sys.stdin)), sys.stdout)
        sys.exit()
    if sys.argv[1:] != ["data"]:
        sys.exit("usage: python -m helpers.documentation data")
    build()
