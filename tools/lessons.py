"""The lessons as files: read, execute, normalise, store, and put the solutions in place.

`python -m tools.lessons [--fresh] [03 ...]` runs each notebook from a clean kernel in its own
folder and stores it in one fixed form, so that a second run leaves no diff. A cell that measures
(tag `measured` or `nbval-ignore-output`) keeps its stored outputs for as long as the code up to and
including it is the code that made them: its metadata holds that code's digest. Helpers and data
are not in the digest; after a change there, `--fresh` measures again.
"""

import argparse
import copy
import hashlib
import json
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"

# The one list of the course's notebooks. Whatever else lies in notebooks/ is a reader's own.
LESSONS = (
    "00_start_here",
    "01_lookup_tables",
    "02_one_hot_equivalence",
    "03_backprop_through_embeddings",
    "04_sparse_gradients",
    "05_cpu_offloaded_tables",
    "06_word2vec_from_scratch",
    "07_pretrained_word2vec",
    "08_fine_tuning",
    "09_positions",
    "10_visual_question_answering",
    "11_beyond_one_machine",
)
# In notebooks/more/.
SIDE_LESSONS = (
    "01_equal_rows",
    "02_forms_of_one_matrix",
    "03_tied_weights",
    "04_peak_memory",
    "04_sparse_in_practice",
    "05_hiding_the_wait",
    "05_hot_rows",
    "06_the_many_and_the_few",
    "06_faster_than_gensim",
    "07_the_file",
    "07_unknown_words",
    "07_what_vectors_know",
    "08_unseen_words",
    "08_how_far_rows_move",
    "08_two_tasks",
    "09_no_table_at_all",
    "09_numbers",
    "10_inside_the_model",
    "10_the_other_embedding",
    "11_smaller_tables",
    "11_users_and_items",
)
# In notebooks/asked/: questions that people ask, by topic.
ASKED = (
    "what_it_is_and_shapes",
    "ids_and_padding",
    "initialisation_and_training",
    "freezing_and_adding_rows",
    "gradients_and_optimizers",
    "memory_speed_devices",
    "saving_tying_export",
    "bags_tabular_numbers_positions",
)

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MEASURES = {"measured", "nbval-ignore-output"}
WIDGET = "application/vnd.jupyter.widget-view+json"
SLUG = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
MACHINE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}|[0-9a-f]{32}")
FENCE = re.compile(r"^```python\n(.*?)^```[ ]*$", re.M | re.S)
CHECK = re.compile(r"(\w+)\.(\w+)\(.*\)")


class Exercise(NamedTuple):
    """A stub's place in the notebook and the code of its solution."""

    stub: int
    code: str


class LessonError(ValueError):
    """A cell failed; the message names the notebook and the cell."""


class _ThisInterpreter(AsyncKernelManager):
    """Starts the kernel with the running interpreter, whatever kernelspecs are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


def paths(folder: Path = FOLDER) -> list[Path]:
    """The lessons in their order, in `folder`."""
    return [folder / f"{name}.ipynb" for name in LESSONS]


def side_paths(folder: Path = FOLDER) -> list[Path]:
    """The side lessons, in `folder`/more."""
    return [folder / "more" / f"{name}.ipynb" for name in SIDE_LESSONS]


def taught(folder: Path = FOLDER) -> list[Path]:
    """Lessons and side lessons: what has a card and exercises."""
    return paths(folder) + side_paths(folder)


def asked_paths(folder: Path = FOLDER) -> list[Path]:
    """The pages of questions and answers, in `folder`/asked."""
    return [folder / "asked" / f"{name}.ipynb" for name in ASKED]


def every(folder: Path = FOLDER) -> list[Path]:
    """All notebooks of the course: lessons, side lessons, and the questions that people ask."""
    return taught(folder) + asked_paths(folder)


def find(name: str) -> Path:
    """The notebook that `name` means: a path, a number ("03"), or a name ("03_tied_weights")."""
    if name.endswith(".ipynb"):
        return Path(name)
    wanted = [path for path in every() if path.stem == name]
    wanted += [path for path in paths() if path.stem.startswith(f"{name:0>2}_")]
    if not wanted:
        raise ValueError(f"there is no lesson {name!r}: name one by its number, its name or a path")
    return wanted[0]


def is_side(path: Path) -> bool:
    """Whether the notebook is a side lesson: by its folder, of the course or of a kit."""
    return path.parent.name == "more"


def label(path: Path) -> str:
    """How pages and claims name a lesson: "03"; and a side lesson: "03 tied weights"."""
    return path.stem.replace("_", " ") if is_side(path) else path.name[:2]


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags, in order."""
    return list(cell.metadata.get("tags", []))


def read(path: Path) -> NotebookNode:
    """The notebook at `path`, as nbformat 4.5. FileNotFoundError, or ValueError if it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing and duplicate ids: normalise mends them
        try:
            return nbformat.read(path, as_version=4)
        except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError) as error:
            raise ValueError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


def text(nb: NotebookNode) -> str:
    """The notebook as its file's text: JSON with indent 1 and a final newline."""
    return nbformat.writes(nb, version=4).rstrip("\n") + "\n"


def store(nb: NotebookNode, path: Path) -> bool:
    """Write `nb` to `path`, all of it or nothing; True if the file's bytes changed."""
    new = text(nb).encode()
    if path.exists() and path.read_bytes() == new:
        return False
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(new)
    os.replace(part, path)
    return True


def _slug(source: str) -> str:
    """The first words of `source` as an id, at most 36 characters to leave room for a suffix."""
    slug = ""
    for word in re.findall(r"[a-z0-9]+", source.lower()):
        if len(slug) + len(word) > 35:
            break
        slug += f"-{word}" if slug else word
    return slug or "cell"


def _name_cells(cells: list[NotebookNode]) -> None:
    """Keep each id that a person could have written; replace missing, double and machine-made."""
    taken: set[str] = set()
    nameless = []
    for cell in cells:
        name = cell.get("id", "")
        if SLUG.fullmatch(name) and not MACHINE_ID.fullmatch(name) and name not in taken:
            taken.add(name)
        else:
            nameless.append(cell)
    for cell in nameless:
        base = name = _slug(cell.source)
        number = 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        cell["id"] = name
        taken.add(name)


def _outputs(cell: NotebookNode) -> list[NotebookNode]:
    """The cell's outputs without widgets, streams joined, metadata of what is shown only."""
    kept: list[NotebookNode] = []
    for out in cell.outputs:
        if WIDGET in out.get("data", {}):
            continue
        stream = out.output_type == "stream"
        if stream and kept and kept[-1].output_type == "stream" and kept[-1].name == out.name:
            kept[-1].text += out.text
            continue
        if "metadata" in out:
            out.metadata = {k: v for k, v in out.metadata.items() if k in out.data}
        if out.output_type == "execute_result":
            out.execution_count = cell.execution_count
        kept.append(out)
    return kept


def normalise(nb: NotebookNode) -> NotebookNode:
    """A copy in the one form that is stored: ids, sources, metadata and outputs.

    Execution counts stay as they are: a clean run numbers the cells, a renumbering would hide
    that there was none.
    """
    nb = nbformat.from_dict(copy.deepcopy(nb))
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.from_dict(METADATA)
    for cell in nb.cells:
        cell.source = "\n".join(line.rstrip() for line in cell.source.split("\n")).rstrip()
        kept = {"tags": tags(cell)} if tags(cell) else {}
        if MEASURES & set(tags(cell)) and "digest" in cell.metadata:
            kept["digest"] = cell.metadata["digest"]
        if "hide-input" in tags(cell):  # which folds the code on pages; JupyterLab reads this
            kept["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell)
    _name_cells(nb.cells)
    return nb


def digests(nb: NotebookNode) -> dict[int, str]:
    """For each measuring cell's index, a digest of all code up to and including it."""
    code, found = hashlib.sha256(), {}
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            code.update(json.dumps(cell.source).encode())
            if MEASURES & set(tags(cell)):
                found[i] = code.hexdigest()[:16]
    return found


def execute(nb: NotebookNode, folder: Path, name: str, **environment: str) -> NotebookNode:
    """A copy of `nb` run from a clean kernel in `folder`; LessonError names the cell that failed.

    The kernel is the running interpreter's, with CI=1 (quiet progress bars) and `environment`.
    """
    nb = copy.deepcopy(nb)
    at = [0]
    client = NotebookClient(
        nb,
        kernel_name="python3",
        kernel_manager_class=_ThisInterpreter,
        resources={"metadata": {"path": str(folder)}},
        timeout=600,
        record_timing=False,
        on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index),
    )
    try:
        client.execute(env={**os.environ, "CI": "1", **environment}, transport_encryption="auto")
    except Exception as error:  # nbclient raises its own, a dead kernel's and zmq's errors
        what = getattr(error, "ename", "") or type(error).__name__
        why = (str(getattr(error, "evalue", "") or error).splitlines() or [""])[0]
        cell = nb.cells[at[0]]
        raise LessonError(f"{name}: cell {at[0]} ({cell.get('id')}): {what}: {why}") from error
    return nb


def refresh(path: Path, fresh: bool = False) -> str:
    """Execute the notebook at `path` and store it; one line about it (name, seconds, cells)."""
    before, start = path.read_bytes() if path.exists() else b"", time.perf_counter()
    stored = normalise(read(path))
    new = normalise(execute(stored, path.resolve().parent, path.name))
    for i, digest in digests(new).items():
        old = stored.cells[i]
        if old.outputs and old.metadata.get("digest") == digest and not fresh:
            new.cells[i].outputs = old.outputs
        new.cells[i].metadata["digest"] = digest
    if path.read_bytes() != before:
        raise LessonError(f"{path.name}: edited while it ran; left as it is, run it again")
    state = "changed" if store(normalise(new), path) else "unchanged"
    seconds = time.perf_counter() - start
    return f"{path.name}: {seconds:.1f} s, {len(new.cells)} cells, {state}"


def _exercise(cells: list[NotebookNode], stub: int) -> Exercise:
    """The stub at that index with its solution, the next one before another stub."""
    for cell in cells[stub + 1 :]:
        if "exercise" in tags(cell):
            break
        if cell.cell_type == "markdown" and "solution" in tags(cell):
            blocks = FENCE.findall(cell.source)
            folded = r"<details>\s*<summary>.+?</summary>\n\n.*\n\n</details>"
            if len(blocks) != 1:
                raise ValueError(f"solution {cell.id!r}: {len(blocks)} ```python blocks, need one")
            if not re.fullmatch(folded, cell.source.strip(), re.S):
                raise ValueError(
                    f"solution {cell.id!r}: needs <details><summary>..</summary>, a blank line, "
                    "the block, a blank line, </details>"
                )
            return Exercise(stub, blocks[0].rstrip())
    raise ValueError(f"exercise {cells[stub].id!r}: no markdown cell tagged solution follows it")


def exercises(nb: NotebookNode) -> list[Exercise]:
    """Each stub (code cell tagged `exercise`) with its solution; ValueError where a pair fails."""
    cells = nb.cells
    stubs = [i for i, c in enumerate(cells) if c.cell_type == "code" and "exercise" in tags(c)]
    found = [_exercise(cells, i) for i in stubs]
    solutions = sum("solution" in tags(cell) for cell in cells)
    if solutions != len(stubs):
        raise ValueError(f"{len(stubs)} exercises, {solutions} solutions: each needs its own")
    return found


def stub_check(cell: NotebookNode) -> tuple[str, str]:
    """(module alias, exercise) of the check on the stub's last line; ValueError if it is none."""
    last = (cell.source.splitlines() or [""])[-1]
    match = CHECK.fullmatch(last)
    if not match:
        raise ValueError(f"exercise {cell.id!r}: last line {last!r} is no check.<name>(...)")
    return match[1], match[2]


def with_solutions(nb: NotebookNode) -> NotebookNode:
    """A copy in which each stub holds its solution's code, then its own last line, the check."""
    nb = copy.deepcopy(nb)
    for exercise in exercises(nb):
        cell = nb.cells[exercise.stub]
        stub_check(cell)
        cell.source = f"{exercise.code}\n{cell.source.splitlines()[-1]}"
    return nb


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks named, or all of the course; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.lessons", description=refresh.__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("names", nargs="*", help="such as 03, 03_tied_weights, or a path")
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.names or map(str, every()):
        try:
            print(refresh(find(name), options.fresh), flush=True)
        except (ValueError, OSError) as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
