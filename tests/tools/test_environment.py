"""Setting up: the lists, the files drawn from them, and helpers.environment, their installer."""

import ast
import errno
import importlib.metadata
import json
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
from rattler import MatchSpec

from tools import environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "helpers" / "environment.py"
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
    monkeypatch.setattr(environment.sys, "version_info", (3, 13, 9))
    direct = environment.direct((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert set(direct) == {
        *("torch", "numpy", "matplotlib", "jupyterlab", "ipykernel", "ipywidgets", "tqdm"),
        *("scipy", "sympy", "networkx", "gensim", "nbgitpuller"),
    }


def test_a_package_that_is_not_for_this_python_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version, wanted in (((3, 13, 9), {"a": "1", "b": "2"}), ((3, 14, 0), {"a": "1"})):
        monkeypatch.setattr(environment.sys, "version_info", version)
        assert environment.direct("a==1\nb==2 ; python_version < '3.14'\n") == wanted


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
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in environment.LISTS)
    parts = re.split(r"^(?=# )", text, flags=re.M)
    direct = "".join(part for part in parts if not part.startswith(environment.BROUGHT_IN))
    direct = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", direct, re.M)}
    needed = set()
    for name in pinned():
        extras = importlib.metadata.metadata(name).get_all("Provides-Extra") or []
        asked = Requirement(f"{name}[{','.join(extras)}]" if extras else name)
        needed |= {canonicalize_name(need.name) for need in needed_by(asked)}
    assert not set(pinned()) - direct - needed


# The files drawn from the lists.


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment_yml_is_one_that_conda_understands() -> None:
    assert set(conda()) == {"name", "channels", "dependencies"}
    assert conda()["channels"] == ["conda-forge", "nodefaults"]
    specs = [MatchSpec(d) for d in conda()["dependencies"] if isinstance(d, str)]
    assert [str(spec.name.normalized) for spec in specs] == ["python", "pip"]


def test_environment_yml_agrees_with_the_list() -> None:
    (pip,) = [d["pip"] for d in conda()["dependencies"] if isinstance(d, dict)]
    assert pip == ["-r requirements.txt", "-e ."]
    ours = {canonicalize_name(r.name) for r in requirements("requirements-dev.txt")}
    of_conda = {MatchSpec(d).name.normalized for d in conda()["dependencies"] if isinstance(d, str)}
    assert not ours & of_conda


def test_all_places_name_pythons_that_the_course_runs_on() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        requires = SpecifierSet(tomllib.load(file)["project"]["requires-python"])
    oldest, newest = ("{}.{}".format(*v) for v in (environment.OLDEST, environment.NEWEST))
    before = f"{environment.OLDEST[0]}.{environment.OLDEST[1] - 1}"
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
        assert environment.OLDEST <= tuple(map(int, version.split("."))) <= environment.NEWEST
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


def test_workflows_cover_three_systems_and_the_newest_torch_blocks_nothing() -> None:
    rows = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert {row["os"].partition("-")[0] for row in rows} == {"ubuntu", "macos", "windows"}
    newest = workflow("newest-torch")
    assert newest["jobs"]["newest"]["continue-on-error"] is True
    # YAML reads the key `on` as true.
    assert newest[True]["schedule"]


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


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which making .venv and running pip only leave a note of it."""
    for name in environment.LISTS:
        (tmp_path / name).write_text(f"# {name}\ntorch==2.13.0\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "make_venv", lambda: (note("venv"), venv.mkdir(exist_ok=True)))
    monkeypatch.setattr(environment, "pip_install", lambda *arguments: note(arguments[-1]))
    monkeypatch.setattr(
        environment, "venv_version", lambda: sys.version_info[:2] if venv.exists() else None
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10**12))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    done.clear()
    return tmp_path


done: list[str] = []


def note(what: str) -> None:
    done.append(what)


def works_done(*arguments: str) -> list[str]:
    """What one run of the script does."""
    done.clear()
    assert environment.main(list(arguments)) == 0
    return list(done)


def test_the_environment_is_made_once_and_renewed_when_the_list_changes(tree: Path) -> None:
    assert works_done() == ["venv", "requirements.txt", "."]
    assert works_done() == []
    (tree / "requirements.txt").write_text("torch==2.14.0\n")
    assert works_done() == ["requirements.txt", "."]
    assert works_done() == []


def test_a_maintainers_environment_is_a_readers_too(tree: Path) -> None:
    assert works_done() == ["venv", "requirements.txt", "."]
    assert works_done("--dev") == ["requirements-dev.txt", "."]
    assert works_done() == [] and works_done("--dev") == []
    (tree / "requirements-dev.txt").write_text("pytest==10.0.0\n")
    assert works_done() == []
    assert works_done("--dev") == ["requirements-dev.txt", "."]


def test_a_broken_or_moved_environment_is_made_anew(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = ["venv", "requirements.txt", "."]
    file = tree / ".venv" / "course.json"
    for version in (None, (3, 10)):
        with monkeypatch.context() as patch:
            patch.setattr(environment, "venv_version", lambda found=version: found)
            assert works_done() == anew
        # Nothing noted, as in a .venv made by hand: it is the Python alone that does not fit.
        file.unlink()
    for change in ({"root": "elsewhere"}, {"version": [3, 99]}):
        works_done()
        assert works_done() == []
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        assert works_done() == anew


@pytest.mark.parametrize("problem", [environment.SetUpError("no"), KeyboardInterrupt()])
def test_an_install_that_broke_off_is_redone(
    tree: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    def breaks(*arguments: str) -> None:
        raise problem

    works_done()
    (tree / "requirements.txt").write_text("torch==2.14.0\n")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "pip_install", breaks)
        assert environment.main([]) > 0
    (tree / "requirements.txt").write_text("# requirements.txt\ntorch==2.13.0\n")
    assert works_done() == ["requirements.txt", "."]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the script fails with."""
    assert environment.main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_too_little_room_is_told_with_figures(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil._ntuple_diskusage(10**12, 0, 25 * 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "2.5 GB free and the environment needs about 3 GB" in complaint(capsys)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in environment.SOURCES:
        monkeypatch.delenv(name, raising=False)
    assert "needs about 12 GB" in complaint(capsys)
    # An environment that only needs a new version or two needs less.
    (tree / ".venv").mkdir()
    assert environment.main([]) == 0


def test_a_disk_that_fills_up_is_told_in_one_line(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(environment, "pip_install", full)
    assert complaint(capsys) == environment.FULL


@pytest.mark.parametrize("card", [True, False])
def test_linux_without_a_card_is_told_how_to_do_without_cuda(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], card: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: "nvidia-smi" if card else None)
    for name in environment.SOURCES:
        monkeypatch.delenv(name, raising=False)
    works_done()
    assert ("whl/cpu make lab" in capsys.readouterr().out) is not card


def test_no_advice_where_torch_comes_from_elsewhere(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    works_done()
    assert "CUDA" not in capsys.readouterr().out


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_venv_module_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    real = environment.importlib.util.find_spec
    monkeypatch.setattr(
        environment.importlib.util, "find_spec", lambda name: None if name == module else real(name)
    )
    with pytest.raises(environment.SetUpError) as caught:
        environment.make_venv()
    package = "python{}.{}-venv".format(*sys.version_info)
    assert f"no {module} module" in str(caught.value) and package in str(caught.value)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(Failed to establish "
            "a new connection: [Errno 111] Connection refused)'\n"
            "ERROR: No matching distribution found for torch==2.13.0",
            "registry cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==9.9", "no torch==9.9"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        ("Collecting x\nERROR: something new", "ERROR: something new"),
        ("", "says no more"),
    ],
)
def test_why_pip_failed_is_told_in_one_line(log: str, words: str) -> None:
    assert words in environment.reason(log)
    assert "\n" not in environment.reason(log)


def test_pip_talks_to_a_log_and_a_failure_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # pip itself, asked for something that cannot be: a file that is not there.
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "in_venv", lambda program: Path(sys.executable))
    (tmp_path / ".venv").mkdir()
    with pytest.raises(environment.SetUpError, match=r"install\.log"):
        environment.pip_install("--no-index", "./nothing-here.whl")
    assert "nothing-here" in (tmp_path / ".venv" / "install.log").read_text()
    assert capsys.readouterr().out == ""


def test_a_person_sees_big_downloads_and_the_end() -> None:
    line = "  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (526.6 MB)\n"
    assert environment.progress(line).endswith("linux_x86_64.whl (526.6 MB).")
    assert environment.progress("  Downloading tqdm-4.70.1-py3-none-any.whl (78 kB)\n") == ""
    assert environment.progress("Installing collected packages: a, b\n") == "Installing 2 packages."


def test_an_old_python_can_read_the_script() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", ["(3, 9, 2)", "(3, 99, 0)"])
def test_the_wrong_python_is_told_in_one_line(tmp_path: Path, version: str) -> None:
    # A copy without lists beside it, so that nothing is installed should it go on.
    script = shutil.copy(SCRIPT, tmp_path)
    code = f"import runpy, sys; sys.version_info = {version}; runpy.run_path({str(script)!r}, "
    code += "run_name='__main__')"
    ended = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and environment.SUPPORTED in line


def test_the_script_needs_the_standard_library_alone() -> None:
    code = "import sys, helpers.environment as e; print(*sorted(sys.modules))"
    command = [sys.executable, "-S", "-c", code]
    modules = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = {name.partition(".")[0] for name in modules.split()}
    assert not ours - set(sys.stdlib_module_names) - {"helpers", "__main__"}


# What lesson 00 asks.


def test_this_environment_is_as_the_list_says() -> None:
    assert environment.wrong_python() == environment.wrong_packages() == []
    assert environment.wrong_helpers() == []


def test_a_wrong_python_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    (line,) = environment.wrong_python()
    assert environment.SUPPORTED in line


def test_a_missing_and_another_version_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text(
        "torch==1.0.0\nno-such-package==1.0\n\n# Brought in by these.\nnumpy==0.1\n"
    )
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    torch, absent = environment.wrong_packages()
    assert torch.startswith("torch is 2.") and "1.0.0" in torch
    assert absent.startswith("no-such-package is not installed")


def test_other_helpers_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (line,) = environment.wrong_helpers()
    assert "another package" in line
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    (line,) = environment.wrong_helpers()
    assert "not installed" in line


@pytest.mark.parametrize(
    ("value", "fine"), [("1", True), ("0", False), ("many", False), ("100000", False)]
)
def test_threads_that_do_not_fit_are_reported(
    monkeypatch: pytest.MonkeyPatch, value: str, fine: bool
) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert (environment.wrong_threads() == []) is fine


def test_too_little_disk_and_memory_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Little:
        available = 10**9

    usage = shutil._ntuple_diskusage(10**12, 0, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(psutil, "virtual_memory", Little)
    disk, memory = environment.wrong_room()
    assert "0.1 GB" in disk and "1.0 GB" in memory


def test_check_says_it_all_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "wrong_room", lambda: ["a sentence"])
    monkeypatch.setattr(environment, "wrong_threads", lambda: [])
    assert environment.check() == ["a sentence."]

    def wrong_room() -> list[str]:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(environment, "wrong_room", wrong_room)
    assert environment.check() == ["Could not check room (RuntimeError: no such thing)."]


# A folder of packages in place of a network.


def test_a_folder_of_wheels_takes_the_networks_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    class Pip:
        returncode, stdout = 0, ()

        def __init__(self, command: list[str], **options: object) -> None:
            asked.append([str(part) for part in command])

        def __enter__(self) -> "Pip":
            return self

        def __exit__(self, *problem: object) -> None:
            pass

    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment.subprocess, "Popen", Pip)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in environment.SOURCES:
        monkeypatch.delenv(name, raising=False)
    # An empty folder is no source, and neither is none.
    for _ in range(2):
        environment.pip_install("-r", "requirements.txt")
        assert "--no-index" not in asked[-1] and environment.expects_cuda()
        (tmp_path / "wheels").mkdir(exist_ok=True)
    (tmp_path / "wheels" / "torch-2.13.0-py3-none-any.whl").touch()
    environment.pip_install("-r", "requirements.txt")
    assert asked[-1][-3:] == ["--no-index", "--find-links", str(tmp_path / "wheels")]
    assert not environment.expects_cuda()
    absent = "ERROR: No matching distribution found for numpy==2.4.6"
    assert "The folder wheels/ has no numpy==2.4.6" in environment.reason(absent)


# The check of the day before.


def test_this_computer_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """For real: a kernel computes, and JupyterLab answers."""
    assert environment.wrong_kernel() == environment.wrong_jupyterlab() == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [("import no_such_module", "ModuleNotFoundError"), ("print('[2.0]')", "computes [2.0] where")],
)
def test_a_kernel_without_a_torch_that_computes_is_told(
    monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr(environment, "TRIAL", code)
    (line,) = environment.wrong_kernel()
    assert words in line


def test_a_jupyterlab_that_does_not_start_is_told_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = subprocess.Popen
    # In its place, a program that fails as a broken installation does.
    code = "import sys; sys.exit('No module named jupyterlab')"
    monkeypatch.setattr(
        environment.subprocess,
        "Popen",
        lambda command, **options: run([command[0], "-c", code], **options),
    )
    (line,) = environment.wrong_jupyterlab()
    assert "did not answer" in line and line.endswith("No module named jupyterlab")


def test_the_verdict_is_one_line_and_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = ("python", "packages", "helpers", "threads", "room", "kernel", "jupyterlab")
    for name in looks:
        monkeypatch.setattr(environment, f"wrong_{name}", lambda: [])
    assert environment.ready() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines[:-2]] == ["ok "] * len(looks)
    assert lines[-1].startswith("Ready.")
    monkeypatch.setattr(environment, "wrong_room", lambda: ["The disk is full"])
    assert environment.ready() == 1
    out = capsys.readouterr().out
    assert "NO  The disk is full." in out and out.splitlines()[-1].startswith("Not ready.")


@pytest.mark.parametrize("entered", [True, False])
def test_the_check_makes_the_environment_where_none_is_entered(
    tree: Path, monkeypatch: pytest.MonkeyPatch, entered: bool
) -> None:
    (tree / "notebooks").mkdir()
    monkeypatch.setattr(environment, "wrong_packages", lambda: [] if entered else ["none"])
    monkeypatch.setattr(environment, "wrong_helpers", lambda: [])
    asked: list[list[str]] = []

    def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
        asked.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment.main(["--check"]) == 3
    assert done == ([] if entered else ["venv", "requirements.txt", "."])
    assert asked[0][0] == (sys.executable if entered else str(environment.in_venv("python")))
