"""The docstrings of installed libraries, from their source files. Nothing of them is imported."""

import ast
import importlib.util
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LIBRARIES = ("torch", "numpy", "scipy", "matplotlib", "sympy", "networkx", "python")

# Tests are not documentation, and a vendored copy documents another library.
_SKIPPED_FOLDERS = {"tests", "test", "idle_test", "__pycache__", "_vendor", "site-packages"}
_SKIPPED_FOLDERS |= {"array_api_compat", "array_api_extra", "_vendored"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


def read(library: str) -> Iterator[tuple[str, str]]:
    """(module name, docstring) for each docstring of a library, in the order of its sources.

    `library` is an import name, or "python" for the standard library.
    """
    for module, path in sources(library):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes(), path)
        for text in texts(tree):
            yield module, text
    if library == "numpy":  # its ufuncs' docstrings are in its binary and in no source file
        for _, value in sorted(vars(np).items()):
            if isinstance(value, np.ufunc) and value.__doc__:
                yield "numpy", value.__doc__


def sources(library: str) -> list[tuple[str, Path]]:
    """(module name, file) for each source file of a library, sorted; tests are left out."""
    files = []
    for root in _roots(library):
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            parts = path.relative_to(root.parent).with_suffix("").parts
            in_tests = parts[1:3] == ("testing", "_internal")  # PyTorch's own test suite
            if not in_tests and _SKIPPED_FOLDERS.isdisjoint(parts[:-1]):
                names = parts[:-1] if parts[-1] == "__init__" else parts
                files.append((".".join(names), path))
    return files


def _roots(library: str) -> list[Path]:
    """A library's folder; the folders and files of the standard library."""
    if library == "python":
        stdlib = Path(sysconfig.get_path("stdlib"))
        places = [stdlib / name for name in sorted(sys.stdlib_module_names)]
        places = [place if place.is_dir() else place.with_suffix(".py") for place in places]
        return [place for place in places if place.exists()]  # the rest is in the binary
    spec = importlib.util.find_spec(library)
    if spec is None:
        raise ModuleNotFoundError(f"{library} is not installed: its documentation is part of data/")
    return [Path(spec.origin).parent]


def texts(node: ast.AST) -> Iterator[str]:
    """The documentation in a parsed file, in source order.

    Docstrings, what is assigned to a `__doc__`, and what is handed to add_docstr or add_newdoc.
    """
    if isinstance(node, (ast.Expr, ast.Assign)):
        yield from _handed_over(node)
    if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node, clean=False)):
        yield docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _STATEMENTS):
            yield from texts(child)


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
