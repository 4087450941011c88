"""How long a word2vec file takes to load, and how much memory: helpers.word2vec and gensim.

A binary file of random words and rows is written to a temporary folder and loaded in turn by each,
from the system's cache, on one thread. Both must give the same words and rows. Then files of many
kinds are damaged at random: each loads, or is refused by a ValueError, in bounded memory.
"""

import dataclasses
import gc
import gzip
import importlib.metadata
import importlib.util
import multiprocessing
import random
import re
import shutil
import statistics
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import word2vec

from .common import Block, short, target, targets

CPU = torch.device("cpu")
WAYS = ("gensim", "whole", "chosen", "bytes alone")
NOT_FINITE = (struct.pack("<f", float("nan")), struct.pack("<f", -float("inf")))
MOST_BYTES = 16 << 20  # that a damaged file of a few hundred bytes may make `load` allocate


@dataclasses.dataclass(frozen=True)
class Parameters:
    words: int = 1_000_000
    dim: int = 300
    chosen: int = 10_000  # words that are asked for
    rounds: int = 3
    mutations: int = 10_000
    seed: int = 0
    memory_of: tuple[str, ...] = ("gensim", "whole", "chosen")  # a process each

    @property
    def bytes(self) -> int:
        """Of the rows, and about those of the file."""
        return self.words * self.dim * 4


DEFAULT = Parameters()
TINY = Parameters(2_000, 8, 20, rounds=1, mutations=100, memory_of=("whole",))


def missing(p: Parameters, folder: str | None) -> str | None:
    """What stands in the way of this benchmark, in a sentence."""
    if importlib.util.find_spec("gensim") is None:
        return "The benchmark files compares with gensim, which is not installed: it is left out."
    where = folder or tempfile.gettempdir()
    if (free := shutil.disk_usage(where).free) < 1.1 * p.bytes:
        return (f"The benchmark files needs {p.bytes * 1.1e-9:.1f} GB in {where}, where "
                f"{free * 1e-9:.1f} are free: name a roomier folder with --folder.")  # fmt: skip
    return None


def measured(p: Parameters, folder: str | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "generated.bin"
        write(path, p)
        check(path, p)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(p.rounds):
            for way in WAYS:
                times[way].append(_seconds(loading(way, path, p)))
        # A process of its own for each way, so that none finds memory that another freed.
        private: dict[str, dict | None] = {}
        for way in p.memory_of:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                private[way] = pool.submit(memory, way, path, p).result()
        damaged = fuzz(p.mutations, p.seed, Path(place))
    least = {way: min(times[way]) for way in WAYS}
    rows = [
        {"way": way, "seconds": short(least[way]), "median": short(statistics.median(times[way])),
         "times_as_fast": short(least["gensim"] / least[way]), "memory": private.get(way)}
        for way in WAYS
    ]  # fmt: skip
    goals = [
        target("whole file, times as fast as gensim", rows[1]["times_as_fast"], 5, at_least=True),
        target(f"{p.chosen:,} words, times as fast as gensim", rows[2]["times_as_fast"], 15, True),
    ]
    if held := private["whole"]:
        goals += [
            target("whole file, private memory beyond the words / array", held["rest"], 1.05),
            target("the same with the words", held["all"], 1.05),
        ]
    return {"benchmark": "files", "gensim": importlib.metadata.version("gensim"),
            "parameters": dataclasses.asdict(p), "rows": rows, "mutations": damaged,
            "targets": goals}  # fmt: skip


def _seconds(function: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    del result  # after the clock has stopped
    return seconds


# --- The file, and the ways to load it --------------------------------------------------------


def write(path: Path, p: Parameters) -> None:
    """A file of p.words words of 3 to 12 letters and a number, as gensim would write it."""
    generator, letters = np.random.default_rng(p.seed), random.Random(p.seed)
    with path.open("wb") as file:
        file.write(b"%d %d\n" % (p.words, p.dim))
        for start in range(0, p.words, 10_000):
            rows = generator.random((min(10_000, p.words - start), p.dim), np.float32) - 0.5
            for i, row in enumerate(rows, start):
                word = "".join(letters.choices("etaoinshr", k=letters.randint(3, 12)))
                file.write(f"{word}{i} ".encode() + row.tobytes())


def asked(path: Path, p: Parameters) -> list[str]:
    """The words that are asked for: spread over the file, in random order."""
    words, _ = word2vec.load(path, progress=False)
    return random.Random(p.seed).sample(words, p.chosen)


def loading(way: str, path: Path, p: Parameters) -> Callable[[], object]:
    """A function that loads the file in one of the WAYS."""
    if way == "gensim":
        from gensim.models import KeyedVectors

        return lambda: KeyedVectors.load_word2vec_format(path, binary=True)
    if way == "whole":
        return lambda: word2vec.load(path, progress=False)
    if way == "chosen":
        words = asked(path, p)
        return lambda: word2vec.load(path, words, progress=False)
    return lambda: _read(path)


def _read(path: Path) -> None:
    """Read a file to its end, and keep nothing: the least that any loader does."""
    piece = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def check(path: Path, p: Parameters) -> None:
    """Hold our words and rows against gensim's."""
    vectors = loading("gensim", path, p)()
    words, rows = loading("whole", path, p)()
    if words != vectors.index_to_key or not np.array_equal(rows, vectors.vectors):
        raise RuntimeError("helpers.word2vec and gensim load different words or rows")
    chosen, rows = loading("chosen", path, p)()
    if chosen != asked(path, p) or not np.array_equal(rows, vectors[chosen]):
        raise RuntimeError("helpers.word2vec loads other rows when it is asked for some words")


def memory(way: str, path: Path, p: Parameters) -> dict[str, float] | None:
    """The most private memory while a way loads, beyond that before, in sizes of the array."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None  # only Linux tells
    load = loading(way, path, p)
    gc.collect()
    reset.write_text("5")  # forget the peak before
    before = _kilobytes(status, "VmRSS")
    result = load()
    most = (_kilobytes(status, "VmHWM") - before) * 1024
    words = result.index_to_key if way == "gensim" else result[0]
    # 16 bytes: what CPython's allocator rounds a string's size up to.
    of_words = sys.getsizeof(words) + sum(-(-sys.getsizeof(word) // 16) * 16 for word in words)
    array = len(words) * p.dim * 4
    return {"all": short(most / array), "rest": short((most - of_words) / array)}


def _kilobytes(status: Path, field: str) -> int:
    return int(re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE)[1])


# --- Damaged files ----------------------------------------------------------------------------


def samples() -> dict[str, bytes]:
    """Small whole files of every kind."""
    words = ["the", "of", "naïve", "New_York", "東京", "x", "</s>", "don't", "1/2", "word"]
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((len(words), 5)).astype("<f4")
    lines = [f"{word} " + " ".join(map(str, row)) for word, row in zip(words, rows, strict=True)]
    spaced = [line.replace("don't", ". . .").encode() for line in lines]
    head, pairs = b"10 5\n", list(zip(words, rows, strict=True))
    plain = {
        "gensim.bin": head + b"".join(w.encode() + b" " + r.tobytes() for w, r in pairs),
        "word2vec.bin": head + b"".join(w.encode() + b" " + r.tobytes() + b"\n" for w, r in pairs),
        "header.txt": head + b"".join(line + b"\n" for line in spaced),
        "glove.txt": b"\n".join(spaced),
        "windows.vec": b"10 5\r\n" + b"".join(line + b"\r\n" for line in spaced),
    }
    packed = {name + ".gz": gzip.compress(plain[name], mtime=0) for name in list(plain)[:4:2]}
    return plain | packed


def damaged(data: bytes, dice: random.Random) -> bytes:
    """The bytes with one to three mishaps."""
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        a, b = sorted(dice.choices(range(len(data) + 1), k=2))
        some = dice.randbytes(dice.randint(1, 8))
        number = dice.choice([b"0", b"-1", b"7", b"11", b"%d" % 10 ** dice.randint(1, 30), b"1.5"])
        odd = dice.choice([b"\n", b"\r\n", b" ", b"\0", b"\xff\xfe", b"\xe6", b"nan", b"1e999",
                           *NOT_FINITE])  # fmt: skip
        header = dice.choice([rb"^\d+", rb"(?<=^\d\d )\d+"])
        data = dice.choice([
            data[:b],  # cut short
            data[a:],
            data[:a] + data[b:],  # a piece missing, twice there, or of something else
            data[:b] + data[a:],
            data[:a] + some + data[a + len(some) :],
            data[:a] + some + data[a:],
            data[:a] + odd + data[a + len(odd) :],
            data[:a] + odd + data[a:],
            data[:a] + bytes(8) + data[a + 8 :],
            data + some,
            re.sub(header, number, data, count=1),
        ])  # fmt: skip
    return data


def fuzz(number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Damage files and load them. Anything but a sound result or a ValueError is an error."""
    dice, kinds = random.Random(seed), samples()
    found: Counter[str] = Counter()
    longest = most = 0
    tracemalloc.start()
    try:
        for _ in range(number):
            name, data = dice.choice(list(kinds.items()))
            if dice.random() < 0.3 and name.endswith(".gz"):  # damage below the checksum
                data = gzip.compress(damaged(gzip.decompress(data), dice), mtime=0)
            else:
                data = damaged(data, dice)
            path = folder / dice.choice([name, name, "vectors"])
            path.write_bytes(data)
            options = {
                "binary": dice.choice([None, None, None, True, False]),
                "errors": dice.choice(["strict", "replace", "ignore"]),
                "words": dice.choice([None, None, ["x", "word", "none"], iter(())]),
                "encoding": dice.choice(["utf-8", "utf-8", "latin-1"]),
                "limit": dice.choice([None, None, 3]),
            }
            start, before = time.perf_counter(), tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            found[_outcome(path, data, options)] += 1
            longest = max(longest, time.perf_counter() - start)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
            path.unlink()
    finally:
        tracemalloc.stop()
    if most > MOST_BYTES:
        raise RuntimeError(f"a damaged file took {most} bytes, expected {MOST_BYTES} at most")
    return {"files": number, **found, "longest_seconds": short(longest), "most_bytes": most}


def _outcome(path: Path, data: bytes, options: dict[str, Any]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            told = ".* rows? repeat|.*word is empty|.*no such numbers"
            warnings.filterwarnings("ignore", told, UserWarning)
            words, rows = word2vec.load(path, **options)
    except ValueError as error:
        if path.name not in str(error):
            raise RuntimeError(f"a damaged {path.name}, {options}: {data!r}") from error
        return "refused"
    except BaseException as error:
        raise RuntimeError(f"a damaged {path.name}, {options}: {data!r}") from error
    sound = rows.dtype == np.float32 and rows.shape[0] == len(words) == len(set(words))
    if not (sound and rows.ndim == 2 and np.isfinite(rows).all()):
        raise RuntimeError(f"a damaged {path.name}, {options}, loads as {words}, {rows}: {data!r}")
    return "loaded"


# --- What is printed --------------------------------------------------------------------------


def _in_sizes(of: dict[str, float] | None, part: str) -> str:
    return f"{of[part]:.2f}" if of else "-"


def report(record: dict[str, Any]) -> list[Block]:
    p, damage = record["parameters"], record["mutations"]
    cells = [("way", "seconds", "times as fast", "memory", "without words")]
    cells += [(row["way"], f"{row['seconds']:.3f}", f"{row['times_as_fast']:.1f}",
               _in_sizes(row["memory"], "all"), _in_sizes(row["memory"], "rest"))
              for row in record["rows"]]  # fmt: skip
    damages = [("files", "loaded", "refused", "longest ms", "most MB")]
    damages += [(f"{damage['files']:,}", f"{damage.get('loaded', 0):,}",
                 f"{damage.get('refused', 0):,}", f"{damage['longest_seconds'] * 1e3:.1f}",
                 f"{damage['most_bytes'] / 1e6:.1f}")]  # fmt: skip
    return [
        (f"A binary file of {p['words']:,} words, {p['dim']} numbers each: loaded by gensim; by "
         f"helpers.word2vec, whole and for\n{p['chosen']:,} words; and its bytes read and dropped. "
         "How many times as fast as gensim; private memory at its peak, in\nsizes of the array of "
         "the rows that are loaded, with and without the words:", cells),
        ("Files damaged at random. Each loads, or is refused by a ValueError:", damages),
        targets(record["targets"]),
    ]  # fmt: skip
