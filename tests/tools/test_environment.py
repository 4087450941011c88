"""Setting up: the lists, the files drawn from them, and the installer, tools/environment.py."""

import ast
import errno
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from helpers.environment import NEWEST, OLDEST, SUPPORTED, direct
from tools import environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "environment.py"
CHECK = ROOT / "helpers" / "environment.py"
# torch pins these itself, and they come with its CUDA builds only.
OF_TORCH = re.compile(r"nvidia-|cuda-|triton")


def requirements(name: str) -> list[Requirement]:
    """The lines of a requirements list, with those of the lists it names."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += requirements(str(Path(name).parent / line.removeprefix("-r ")))
        elif line and not line.startswith(("#", "-")):
            found.append(Requirement(line))
    return found


def pinned() -> dict[str, str]:
    """Name and version of all that the lists ask for on this system."""
    here = [r for r in requirements("requirements-dev.txt") if not r.marker or r.marker.evaluate()]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in here}


def needed_by(requirement: Requirement) -> list[Requirement]:
    """What an installed package requires here, given the extras that are asked of it."""
    texts = importlib.metadata.requires(requirement.name) or []
    needs = [Requirement(text) for text in texts]
    extras = ["", *requirement.extras]
    return [
        need
        for need in needs
        if not OF_TORCH.match(need.name)
        and (not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras))
    ]


# The lists.


def test_every_line_is_an_exact_version() -> None:
    for requirement in requirements("requirements-dev.txt"):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), str(requirement)


def test_a_reader_gets_what_the_course_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 9))
    assert set(direct((ROOT / "requirements.txt").read_text(encoding="utf-8"))) == {
        *("torch", "numpy", "matplotlib", "jupyterlab", "ipykernel", "ipywidgets", "tqdm"),
        *("gensim", "nbgitpuller"),
    }


def test_whatever_is_brought_in_is_pinned_and_installed_so() -> None:
    pins = pinned()
    waiting = [Requirement(name) for name in pins]
    seen, wrong = set(), []
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        try:
            have = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is needed and not installed")
            continue
        if pins.get(name) != have:
            wrong.append(f"{name} is installed as {have}, the lists say {pins.get(name)}")
        waiting += needed_by(requirement)
    assert not wrong
    # The walk went somewhere: it left the first list's ten names far behind.
    assert len(seen) > 100


def test_the_lists_pin_nothing_that_nobody_needs() -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in environment.LISTS]
    asked = {canonicalize_name(name) for text in texts for name in direct(text)}
    needed = set()
    for name in pinned():
        extras = importlib.metadata.metadata(name).get_all("Provides-Extra") or []
        whole = Requirement(f"{name}[{','.join(extras)}]" if extras else name)
        needed |= {canonicalize_name(need.name) for need in needed_by(whole)}
    assert not set(pinned()) - asked - needed


# The files drawn from the lists.


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_conda_brings_python_and_pip_and_the_list_the_rest() -> None:
    assert set(conda()) == {"name", "channels", "dependencies"}
    assert conda()["channels"] == ["conda-forge", "nodefaults"]
    python, *others = conda()["dependencies"]
    assert re.fullmatch(r"python=3\.\d+\.\*", python)
    assert others == ["pip", {"pip": ["-r requirements.txt", "-e ."]}]


def test_all_places_name_pythons_that_the_course_runs_on() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        requires = SpecifierSet(tomllib.load(file)["project"]["requires-python"])
    oldest, newest = ("{}.{}".format(*v) for v in (OLDEST, NEWEST))
    before = f"{OLDEST[0]}.{OLDEST[1] - 1}"
    assert requires.contains(oldest) and requires.contains(newest)
    assert not requires.contains(before)
    assert f"{oldest} to {newest}" in (ROOT / "README.md").read_text(encoding="utf-8")
    named = [
        re.search(r"python=(\d+\.\d+)", str(conda()["dependencies"]))[1],
        (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip().split("-")[1],
        re.search(r"python:(\d+\.\d+)", container()["image"])[1],
        *(
            row["python"]
            for row in workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["include"]
        ),
    ]
    for version in named:
        assert OLDEST <= tuple(map(int, version.split("."))) <= NEWEST
    assert {oldest, newest} <= set(named)


def container() -> dict:
    path = ROOT / ".devcontainer" / "devcontainer.json"
    return json.loads(path.read_text(encoding="utf-8"))


def workflow(name: str) -> dict:
    path = ROOT / ".github" / "workflows" / f"{name}.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_binder_installs_the_list() -> None:
    assert pinned().items() >= {
        (canonicalize_name(r.name), str(r.specifier).removeprefix("=="))
        for r in requirements(".binder/requirements.txt")
        if not r.marker
    }
    assert "torch" in {r.name for r in requirements(".binder/requirements.txt")}


def test_what_the_workflows_cover() -> None:
    rows = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert {row["os"].partition("-")[0] for row in rows} == {"ubuntu", "macos", "windows"}
    weekly = workflow("weekly")
    assert weekly["jobs"]["newest"]["continue-on-error"] is True
    # YAML reads the key `on` as true.
    assert weekly[True]["schedule"]


def test_each_python_is_tried_by_a_workflow() -> None:
    rows = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    rows += workflow("weekly")["jobs"]["elsewhere"]["strategy"]["matrix"]["include"]
    tried = {tuple(map(int, row["python"].split("."))) for row in rows}
    assert tried == {(3, minor) for minor in range(OLDEST[1], NEWEST[1] + 1)}


def test_windows_runs_what_make_test_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ours = re.findall(r"^(?:test|lint): .*\n\t(?:\w+=1 )*\$\(IN_VENV\) (-m .*)", makefile, re.M)
    steps = workflow("tests")["jobs"]["tests"]["steps"]
    theirs = [s["run"].partition(" ")[2] for s in steps if "Scripts" in s.get("run", "")]
    assert sorted(ours) == sorted(theirs) and len(ours) == 2


def test_citation_has_what_the_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_make_alone_lists_the_commands() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)).split())
    listed = set(re.findall(r"^\t@echo 'make (\w+) ", makefile, re.M))
    assert listed == targets - {"help", "environment", "environment-dev"}


# The script, with no real install.

AGAIN = [environment.PIP, "requirements.txt", "compiled", "."]
ANEW = ["venv", *AGAIN]
DEV = [environment.PIP, "requirements-dev.txt", "compiled", "."]


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the script does in a folder where making .venv and running pip only leave a note here.

    The lists are in tmp_path, and .venv works as soon as it is there.
    """
    for name in environment.LISTS:
        (tmp_path / name).write_text(f"# {name}\n")
    venv, done = tmp_path / ".venv", []
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "works", venv.exists)
    monkeypatch.setattr(
        environment, "make_venv", lambda: (done.append("venv"), venv.mkdir(exist_ok=True))
    )
    monkeypatch.setattr(environment, "pip_install", lambda *arguments: done.append(arguments[-1]))
    monkeypatch.setattr(environment, "compile_packages", lambda workers: done.append("compiled"))
    return done


def one_run(done: list[str], *arguments: str) -> list[str]:
    """What one run of the script does."""
    done.clear()
    assert environment.main(list(arguments)) == 0
    return done


def test_when_the_environment_is_renewed(
    done: list[str], tmp_path: Path
) -> None:
    assert one_run(done) == ANEW
    assert one_run(done) == []
    (tmp_path / "requirements.txt").write_text("torch==2.14.0\n")
    assert one_run(done) == AGAIN
    assert one_run(done) == []


def test_a_maintainers_environment_is_a_readers_too(done: list[str], tmp_path: Path) -> None:
    assert one_run(done) == ANEW
    assert one_run(done, "--dev") == DEV
    assert one_run(done) == one_run(done, "--dev") == []
    (tmp_path / "requirements-dev.txt").write_text("pytest==10.0.0\n")
    assert one_run(done) == []
    assert one_run(done, "--dev") == DEV
    (tmp_path / "requirements.txt").write_text("torch==2.14.0\n")
    assert one_run(done) == AGAIN
    assert one_run(done, "--dev") == []


def test_a_broken_or_moved_environment_is_made_anew(
    done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_run(done, "--dev")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "works", lambda: False)
        assert one_run(done) == ANEW
    assert one_run(done, "--dev") == DEV
    file = tmp_path / ".venv" / "course.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "root": "elsewhere"}))
    assert one_run(done) == ANEW
    # One that a person made by hand is taken as it is.
    file.unlink()
    assert one_run(done) == AGAIN


def test_a_venv_works_if_its_python_is_one_of_ours_and_has_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PYTHON", sys.executable)
    assert environment.works()
    (tmp_path / "pip.py").write_text("raise ImportError")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert not environment.works()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "OLDEST", (3, 99))
        assert not environment.works()
    with monkeypatch.context() as patch:  # as Ctrl-C leaves it while pip replaces itself
        (tmp_path / "pip.py").write_text("")
        (tmp_path / "pip-26.3.dist-info").mkdir()
        (tmp_path / "pip-26.3.dist-info" / "METADATA").write_text("Name: pip\nVersion: 26.3\n")
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert not environment.works()
        (tmp_path / "pip-26.3.dist-info" / "RECORD").write_text("pip.py,,\n")
        assert environment.works()
    monkeypatch.setattr(environment, "PYTHON", tmp_path / "none")
    assert not environment.works()


@pytest.mark.parametrize("problem", [SystemExit("no"), KeyboardInterrupt()])
def test_an_install_that_broke_off_is_redone(
    done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    def breaks(*arguments: str) -> None:
        raise problem

    one_run(done)
    before = (tmp_path / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text("torch==2.14.0\n")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "pip_install", breaks)
        assert complaint()
    (tmp_path / "requirements.txt").write_text(before)
    assert one_run(done) == AGAIN


def test_without_the_newer_pip_the_older_one_goes_on(
    done: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks_pip(*arguments: str) -> None:
        if arguments[-1] == environment.PIP:
            sys.exit("The registry has no pip")
        done.append(arguments[-1])

    monkeypatch.setattr(environment, "pip_install", lacks_pip)
    assert one_run(done) == [step for step in ANEW if step != environment.PIP]
    assert "Going on with the pip that Python brings" in capsys.readouterr().out


def complaint(*arguments: str) -> str:
    """The one line that the script ends with."""
    with pytest.raises(SystemExit) as ended:
        environment.main(list(arguments))
    line = ended.value.code
    assert isinstance(line, str) and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is too full"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied. Close what uses"),
        (subprocess.CalledProcessError(1, "ensurepip"), "cannot be made"),
    ],
)
def test_an_error_of_the_system_is_told_in_one_line(
    done: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(environment, "make_venv", fails)
    assert words in complaint()


@pytest.mark.parametrize("there", ["nvidia-smi", "PIP_EXTRA_INDEX_URL", "wheels", ""])
def test_linux_without_a_card_is_told_how_to_do_without_cuda(
    done: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: str,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    if there.startswith("PIP"):
        monkeypatch.setenv(there, "https://example.org")
    if there == "wheels":
        (tmp_path / "wheels").mkdir()
        (tmp_path / "wheels" / "torch-2.13.0-py3-none-any.whl").touch()
    one_run(done)
    assert ("whl/cpu make lab" in capsys.readouterr().out) is not bool(there)
    # A newer pip is fetched from where the packages come from; no wheel of it lies in wheels/.
    assert (environment.PIP in done) == (there != "wheels")


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_venv_module_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else real(name)
    )
    with pytest.raises(SystemExit, match=f"no {module} module") as ended:
        environment.make_venv()
    assert "python{}.{}-venv".format(*sys.version_info) in ended.value.code


def test_a_disk_that_is_too_full_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    usage = shutil._ntuple_diskusage(10**12, 0, environment.ROOM - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SystemExit, match="The disk is too full"):
        environment.make_venv()
    assert not environment.VENV.exists()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
            "Failed to establish a new connection: [Errno 111] Connection refused)'\n"
            "ERROR: No matching distribution found for torch==2.13.0",
            "registry cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==9.9", "registry has no torch==9.9"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "too full"),
    ],
)
def test_why_pip_failed_is_told_in_one_line(said: str, words: str) -> None:
    assert words in environment.reason(said) and "\n" not in environment.reason(said)


def test_other_failures_are_left_to_pips_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # pip itself, asked for a file that is not there.
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", sys.executable)
    with pytest.raises(SystemExit, match="pip failed"):
        environment.pip_install("--no-index", "./nothing-here.whl")
    assert "nothing-here" in capfd.readouterr().err


def test_a_folder_of_wheels_takes_the_networks_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", sys.executable)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    (tmp_path / "wheels").mkdir()
    assert not environment.has_wheels()  # an empty folder is none
    (tmp_path / "wheels" / "torch-2.13.0-py3-none-any.whl").touch()
    with pytest.raises(SystemExit, match="The folder wheels/ .* has no no-such-package==1.0"):
        environment.pip_install("no-such-package==1.0")
    heard = capfd.readouterr()
    assert "127.0.0.1" not in heard.err and str(tmp_path / "wheels") in heard.out


# The script where it is started: by any Python, from any folder.


def test_an_old_python_can_read_the_script_and_what_it_imports() -> None:
    for path in (SCRIPT, CHECK):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    # A hint such as list[str] is worked out when the function is defined, and fails before 3.9.
    tree = ast.walk(ast.parse(CHECK.read_text(encoding="utf-8")))
    hints = [node.returns for node in tree if isinstance(node, ast.FunctionDef)]
    assert hints and not any(isinstance(hint, ast.Subscript) for hint in hints)


@pytest.mark.parametrize("version", ["(3, 9, 2)", "(3, 99, 0)"])
def test_the_wrong_python_is_told_in_one_line(tmp_path: Path, version: str) -> None:
    # A copy without lists beside it, so that nothing is installed should it go on.
    for path in (SCRIPT, CHECK):
        (tmp_path / path.parent.name).mkdir()
        shutil.copy(path, tmp_path / path.parent.name)
    code = f"import runpy, sys; sys.version_info = {version}; "
    code += "runpy.run_path('tools/environment.py', run_name='__main__')"
    command = [sys.executable, "-S", "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and SUPPORTED in line


def test_the_script_needs_the_standard_library_alone(tmp_path: Path) -> None:
    # Not even another package called helpers, as the public registry has one, is in its way.
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").touch()
    code = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = {name.partition(".")[0] for name in modules.split()} - set(sys.stdlib_module_names)
    assert ours == {"helpers", "__main__"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("entered", [True, False])
def test_the_check_makes_the_environment_where_none_is_entered(
    done: list[str], monkeypatch: pytest.MonkeyPatch, entered: bool
) -> None:
    asked: list[list] = []

    def run(command: list, cwd: Path) -> subprocess.CompletedProcess:
        asked.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(environment, "check", lambda: [] if entered else ["no torch"])
    monkeypatch.setattr(subprocess, "run", run)
    assert environment.main(["--check"]) == 3
    assert done == ([] if entered else ANEW)
    assert asked == [[sys.executable if entered else environment.PYTHON, "-m", "tools.ready"]]
