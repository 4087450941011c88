"""`make experiments`: run the grids that a lesson draws and has no time to run itself.

    python -m tools.experiments                        all of them, forty minutes
    python -m tools.experiments answers                lesson 10's, half an hour
    python -m tools.experiments attention              its side lesson's, three minutes
    python -m tools.experiments labels                 lesson 08's, eight minutes
    python -m tools.experiments --tiny --into /tmp     seconds: does it run here?

A grid is run by the lesson's own cells, or by the helper that the lesson uses, so that its model
has no second copy here. The record, data/measurements/experiments/<name>.json, holds a digest of
that code: a test says when it has changed since the grid was run. The lesson runs one point of the
grid itself and asserts that it falls where the record says. How accurate a model is depends little
on the machine, so there is one record for all, which says where and when it was made.
"""

import argparse
import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tools import lessons

from ..bench import common
from . import answers, attention, labels

EXPERIMENTS = {"answers": answers, "attention": attention, "labels": labels}
RECORDS = common.MEASUREMENTS / "experiments"


def sources(notebook: Path, ids: Sequence[str]) -> list[str]:
    """The code of the cells of these ids; a ValueError names an id that the notebook lacks."""
    if not ids:
        return []
    found = {cell.id: cell.source for cell in lessons.read(notebook).cells}
    if missing := [name for name in ids if name not in found]:
        raise ValueError(f"{notebook.name} has no cell {missing[0]!r}; was it renamed?")
    return [found[name] for name in ids]


def digest(module: ModuleType) -> str:
    """Sixteen characters that change with any of the cells by which the experiment is run.

    Where the module has FILES, with the code of these files too; their docstrings, comments and
    empty lines are left out.
    """
    parts = sources(module.NOTEBOOK, module.CELLS)
    for name in getattr(module, "FILES", ()):
        text = re.sub(r'""".*?"""', "", (common.ROOT / name).read_text("utf-8"), flags=re.S)
        lines = [re.sub(r"\s+#.*", "", line).rstrip() for line in text.splitlines()]
        parts.append("\n".join(line for line in lines if line and not line.startswith("#")))
    return hashlib.sha256("\n\n".join(parts).encode()).hexdigest()[:16]


def definitions(module: ModuleType, tiny: bool) -> dict[str, Any]:
    """The namespace that the module's cells leave, run in order in the notebook's own folder."""
    notebook, ids = module.NOTEBOOK, module.CELLS
    namespace: dict[str, Any] = {"__name__": notebook.stem}
    with contextlib.chdir(notebook.parent):
        for name, code in zip(ids, sources(notebook, ids), strict=True):
            exec(compile(code, f"{notebook.name}:{name}", "exec"), namespace)
            if tiny and name == ids[0]:  # after the imports
                module.smaller(namespace)
    return namespace


def run(name: str, module: ModuleType, tiny: bool, into: Path) -> Path:
    """Run one experiment and write its record; return where."""
    namespace = definitions(module, tiny)
    found = module.run(namespace, tiny)
    head = {"experiment": name, **common.circumstances(), "notebook": module.NOTEBOOK.name,
            "digest": digest(module)}  # fmt: skip
    return common.write({**head, **found}, into / f"{name}.json")


def stale() -> Iterator[str]:
    """A line for each record whose lesson has other cells now."""
    for name, module in EXPERIMENTS.items():
        path = RECORDS / f"{name}.json"
        if f'"{digest(module)}"' not in path.read_text("utf-8"):
            where = " or ".join([module.NOTEBOOK.name, *getattr(module, "FILES", ())])
            yield f"{path.name}: {where} has changed since; run make experiments"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", help="default: all", metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--into", type=Path, default=RECORDS, help="folder for the JSON")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.names} - {*EXPERIMENTS}):
        parser.error(f"no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    with common.threads(1):
        for name in given.names or EXPERIMENTS:
            path = run(name, EXPERIMENTS[name], given.tiny, given.into)
            print(f"Written to {path}.")


if __name__ == "__main__":
    main()
