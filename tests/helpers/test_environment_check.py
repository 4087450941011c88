"""What lesson 00 asks first: helpers.environment, which needs the standard library alone."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import environment

ROOT = Path(__file__).parents[2]
# Before anything else: a Python that does not find the packages it is told.
HIDE = """import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ImportError(name)
sys.meta_path.insert(0, Hide())
"""


def run(code: str, *options: str, cwd: Path = ROOT, **variables: str) -> str:
    """What a new Python prints that runs `code`; it must end well and complain of nothing."""
    command = [sys.executable, *options, "-c", code]
    ended = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_this_environment_is_as_the_list_says() -> None:
    assert environment.check() == []


def test_the_check_needs_the_standard_library_alone() -> None:
    code = "import sys; from helpers import environment as e; print(*e.check(), *sys.modules)"
    said, _, modules = run(code, "-S").partition("-e .")
    wanted = environment.direct((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert said.startswith(f"Not installed: {', '.join(wanted)}. Start JupyterLab by `make lab`")
    ours = {name.partition(".")[0] for name in modules.split()} - set(sys.stdlib_module_names)
    assert ours - {"__main__"} == {"helpers"}


@pytest.mark.parametrize("hidden", [("torch", "matplotlib"), ("numpy", "IPython", "ipykernel")])
def test_lesson_00_names_missing_packages(hidden: tuple) -> None:
    nb = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    first = next(cell.source for cell in nb.cells if cell.cell_type == "code")
    said = run(HIDE.format(hidden=hidden) + first, cwd=ROOT / "notebooks")
    wanted = environment.direct((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    absent = ", ".join(name for name in wanted if name in hidden)
    assert said.startswith(f"Not installed: {absent}. ") and len(said.splitlines()) == 1


def test_a_home_that_cannot_be_written_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = "from helpers import environment; print(environment.check())"
    assert run(code, HOME=str(tmp_path / "file" / "home")) == "[]\n"


def test_other_helpers_are_told_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (line,) = environment.check()
    assert "finds another" in line and str(tmp_path) in line
    monkeypatch.setattr(environment, "lessons_helpers", lambda: "")
    (line,) = environment.check()
    assert "helpers, is not installed" in line


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 99, 0)])
def test_a_wrong_python_is_told_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, version: tuple
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    (line,) = environment.check()
    assert environment.SUPPORTED in line


def test_missing_packages_and_other_versions_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text(
        "torch==1.0.0\nno-such-package==1.0\n\n# Brought in by these.\nnumpy==0.1\n"
    )
    place = str(tmp_path / "helpers" / "__init__.py")
    monkeypatch.setattr(environment, "lessons_helpers", lambda: place)
    monkeypatch.setattr(environment, "ROOT", tmp_path.resolve())
    absent, torch = environment.check()
    assert absent.startswith("Not installed: no-such-package. ")
    assert torch.startswith("torch is 2.") and "run with 1.0.0. " in torch


def test_it_never_raises_and_says_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (line,) = environment.check()
    assert line.startswith("This could not be checked to the end (FileNotFoundError")
    (tmp_path / "requirements.txt").write_text("no-such-package==1.0\n")
    absent, rest = environment.check()  # there is no folder of lessons to look from
    assert absent.startswith("Not installed") and rest.startswith("This could not be checked")


def test_a_package_that_is_not_for_this_python_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version, wanted in (((3, 13, 9), {"a": "1", "b": "2"}), ((3, 14, 0), {"a": "1"})):
        monkeypatch.setattr(sys, "version_info", version)
        assert environment.direct("a==1\nb==2 ; python_version < '3.14'\n") == wanted
