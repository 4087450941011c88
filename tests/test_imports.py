"""Imports point one way: lessons -> helpers; tools and site -> helpers, tools; tests -> all."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import lessons

ROOT = Path(__file__).parents[1]
OURS = {"helpers", "tools", "tests", "site"}
MAY = {"notebooks": {"helpers"}, "helpers": {"helpers"}, "tools": {"helpers", "tools"}}
MAY["site"] = MAY["tools"]
# To be copied into other projects, so they import nothing of ours.
TAKE_HOME = ("offload", "word2vec", "skipgram")


def imported(source: str, package: str) -> Iterator[str]:
    """The modules that Python code imports, by their full names; `package` is where it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*above, node.module or ""] if node.level else [node.module])
            yield from (f"{module.rstrip('.')}.{name.name}" for name in node.names)


def code_of(path: Path) -> str:
    """A file's Python; of a notebook its code cells, without lines for IPython."""
    if path.suffix == ".py":
        return path.read_text("utf-8")
    cells = [cell for cell in lessons.read(path).cells if cell.cell_type == "code"]
    lines = "\n".join(cell.source for cell in cells).split("\n")
    return "\n".join(line for line in lines if line[:1] not in ("%", "!"))


def wrong(code: str, room: str, package: str) -> list[str]:
    """The imports in `code` that its room may not have."""
    found = {module for module in imported(code, package) if module.split(".")[0] in OURS}
    found -= {module for module in found if module.split(".")[0] in MAY[room]}
    return sorted(found)


FILES = [*lessons.every(), *(ROOT / "notebooks" / "programs").glob("*.py")]
FILES += [path for room in ("helpers", "tools", "site") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    below = path.relative_to(ROOT)
    assert wrong(code_of(path), below.parts[0], ".".join(below.parts[:-1])) == []


@pytest.mark.parametrize("name", TAKE_HOME)
def test_what_can_be_taken_home_imports_nothing_of_ours(name: str) -> None:
    folder = ROOT / "helpers" / name
    files = [*folder.rglob("*.py")] or [folder.with_suffix(".py")]
    found = {module for path in files for module in imported(code_of(path), f"helpers.{name}")}
    ours = {module for module in found if module.split(".")[0] in OURS}
    assert {module for module in ours if not module.startswith(f"helpers.{name}")} == set()


def test_a_wrong_arrow_is_found() -> None:
    assert wrong("from tools import lessons", "helpers", "helpers") == ["tools.lessons"]
    assert wrong("import tools.lessons as x", "notebooks", "notebooks") == ["tools.lessons"]
    assert wrong("from ..helpers import figures", "helpers", "helpers.checks") == []
    assert wrong("from . import Wrong\nimport torch", "helpers", "helpers.checks") == []
    assert wrong("def f():\n    from tests import x", "tools", "tools") == ["tests.x"]
