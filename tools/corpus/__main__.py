"""Build the docs files of data/ from the documentation of the libraries installed here.

    python -m tools.corpus [folder]

It takes two to three minutes. Where data/README.md stands in the folder too, what it says of the
files is renewed.
"""

import datetime
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.documentation import DATA
from tools.corpus import build, sentences, vectors
from tools.corpus.docstrings import LIBRARIES


def main(folder: Path = DATA, libraries: Sequence[str] = LIBRARIES) -> None:
    """Write all four files into `folder`, and what is to be known of them into its README.md."""
    if importlib.util.find_spec("gensim") is None:
        sys.exit(
            "The vectors are trained by gensim, which is not installed here: use a Python that "
            "requirements.txt has it for (3.11 to 3.13)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    print(f"reading the documentation of {', '.join(libraries)}", flush=True)
    found = sentences.read(libraries)
    build.build(folder, found)
    told = vectors.build(folder, found)
    versions = ", ".join(f"{library} {_version(library)}" for library in libraries)
    told["Built on "] = f"{datetime.date.today()} from {versions}."
    record(folder, (*build.NAMES, vectors.NAME), told)


def _version(library: str) -> str:
    return platform.python_version() if library == "python" else importlib.metadata.version(library)


def record(folder: Path, names: Sequence[str], told: dict[str, str]) -> None:
    """Renew in the folder's README.md what it says of the files `names`, if one has changed.

    That is their checksums, and what follows each key of `told` where a line begins with it.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return
    text = readme.read_text(encoding="utf-8")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    if all(checksum in text for checksum in sums.values()):
        return
    for name, checksum in sums.items():
        text = re.sub(rf"(\| {re.escape(name)} \| )\w+", rf"\g<1>{checksum}", text)
    for begin, rest in told.items():
        text = re.sub(rf"^({re.escape(begin)}).*", rf"\g<1>{rest}", text, flags=re.MULTILINE)
    readme.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
