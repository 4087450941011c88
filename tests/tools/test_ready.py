"""What `make check` tries: a kernel that computes, a JupyterLab that answers, one verdict."""

import subprocess
import webbrowser

import pytest

from helpers import environment
from tools import ready


def test_this_computer_is_ready(capfd: pytest.CaptureFixture[str]) -> None:
    """For real: a kernel computes, and JupyterLab answers; neither of them talks."""
    assert ready.wrong_kernel() == ready.wrong_jupyterlab() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (ready.TRIAL.replace("[2, 0, 2]", "[2, 0, 0]"), "torch computes [2.0, 0.0, 1.0] where"),
    ],
)
def test_a_kernel_without_a_torch_that_computes_is_told(
    monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr(ready, "TRIAL", code)
    (line,) = ready.wrong_kernel()
    assert words in line


def test_a_jupyterlab_that_does_not_start_is_told_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = subprocess.Popen
    # In its place, a program that fails as a broken installation does.
    code = "import sys; sys.exit('No module named jupyterlab')"
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: run([command[0], "-c", code], **options)
    )
    (line,) = ready.wrong_jupyterlab()
    assert "does not answer" in line and line.endswith("No module named jupyterlab")


def all_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "check", lambda: [])
    monkeypatch.setattr(ready, "wrong_kernel", lambda: [])
    monkeypatch.setattr(ready, "wrong_jupyterlab", lambda: [])


def test_the_verdict_is_one_line_and_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    all_well(monkeypatch)
    monkeypatch.setattr(webbrowser, "get", lambda: None)
    assert ready.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines[:-1]] == ["ok "] * 4 and lines[-1].startswith("Ready.")

    def raises() -> list[str]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(environment, "check", lambda: ["No torch.", "No numpy."])
    monkeypatch.setattr(ready, "wrong_kernel", raises)
    assert ready.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["NO  No torch.", "NO  No numpy."]
    assert lines[2].startswith("NO  Could not find out") and "no such kernel" in lines[2]
    assert lines[-1].startswith("Not ready. What says NO above (3)")


def test_a_computer_without_a_browser_is_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> None:
        raise webbrowser.Error

    all_well(monkeypatch)
    monkeypatch.setattr(webbrowser, "get", none)
    assert ready.main() == 0
    assert "no browser here" in capsys.readouterr().out
