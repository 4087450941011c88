"""`make bench`: measure, print tables of ratios, and write JSON to data/measurements/.

    python -m tools.bench                                  all four, ten minutes on two cores
    python -m tools.bench step                             one training step, on the CPU
    python -m tools.bench dlrm                             a recommender; on the GPU if there is one
    python -m tools.bench dlrm --rows 20000000 --batch 16384 --memory-fraction 0.05
    python -m tools.bench files --words 1000000 --mutations 10000   word vectors, against gensim
    python -m tools.bench skipgram                         training them, against gensim
    python -m tools.bench --tiny --into /tmp               a few seconds: does it run here?

The variants of a comparison are timed in turn, in one run, and compared by their shortest times:
read the ratios, not the milliseconds. On a CPU one thread works. Let the machine be quiet, run it
twice, and keep the record whose ratios you saw twice. On a GPU `dlrm` has a table of 10 GB on the
host and as much again on the GPU; `--memory-fraction` holds PyTorch to a part of the GPU, so that
`resident` does not fit and the others train. `files` writes 1.2 GB into the temporary folder, or
into `--folder`. `files` and `skipgram` need gensim, hence Python 3.13 or older. No test asserts a
time.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from . import dlrm, files, skipgram, step
from .common import MEASUREMENTS, Block, store, text, threads

OF_DLRM = ("rows", "dim", "batch", "warm", "timed", "rounds", "memory_fraction")
OF_FILES = ("words", "mutations")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    changed = {name: value for name in OF_DLRM if (value := getattr(given, name)) is not None}
    if given.benchmark in (None, "step"):
        parameters = step.TINY if given.tiny else step.DEFAULT
        with threads(1):
            record = step.measured(parameters)
            path = store(record, step.CPU, given.into)
        _show(step.report(record), path)
    if given.benchmark in (None, "dlrm"):
        device = torch.device(given.device)
        parameters = dlrm.ON_GPU if device.type == "cuda" else dlrm.ON_CPU
        parameters = dataclasses.replace(dlrm.TINY if given.tiny else parameters, **changed)
        # On a CPU one thread, as above; a GPU's host gathers its rows with all it has.
        with threads(torch.get_num_threads() if device.type == "cuda" else 1):
            record = dlrm.measured(parameters, device)
            held = parameters.memory_fraction
            suffix = "" if held is None else f"-memory-fraction-{held:g}"
            path = store(record, device, given.into, suffix)
        _show(dlrm.report(record), path)
    if given.benchmark in (None, "files"):
        parameters = files.TINY if given.tiny else files.DEFAULT
        changed = {name: value for name in OF_FILES if (value := getattr(given, name)) is not None}
        parameters = dataclasses.replace(parameters, **changed)
        if why := files.missing(parameters, given.folder):
            print(why, sep="", end="\n\n")
        else:
            with threads(1):
                record = files.measured(parameters, given.folder)
                path = store(record, files.CPU, given.into)
            _show(files.report(record), path)
    if given.benchmark in (None, "skipgram"):
        if why := skipgram.missing():
            print(why, sep="", end="\n\n")
        else:
            with threads(1):
                record = skipgram.measured(skipgram.TINY if given.tiny else skipgram.DEFAULT)
                path = store(record, skipgram.CPU, given.into)
            _show(skipgram.report(record), path)


def _show(blocks: Sequence[Block], path: Path) -> None:
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(text(blocks), f"Written to {near}.", sep="\n\n", end="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("benchmark", nargs="?", choices=("step", "dlrm", "files", "skipgram"),
                        help="default: all")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--into", type=Path, default=MEASUREMENTS, help="folder for the JSON")
    of_dlrm = parser.add_argument_group("dlrm")
    of_dlrm.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name in OF_DLRM[:-1]:
        of_dlrm.add_argument(f"--{name}", type=int)
    of_dlrm.add_argument("--memory-fraction", type=float, metavar="F",
                         help="of the GPU's memory, which PyTorch may use")  # fmt: skip
    of_files = parser.add_argument_group("files")
    of_files.add_argument("--words", type=int, help="in the generated file")
    of_files.add_argument("--mutations", type=int, help="how many files are damaged")
    of_files.add_argument("--folder", help="for the generated file; default: the system's own")
    return parser


if __name__ == "__main__":
    main()
