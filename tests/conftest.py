"""What test files share: how lessons run, a browser, and the site built from the checkout."""

import gc
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from filelock import FileLock
from nbval.plugin import IPyNbCell

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType

from tools import lessons

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Lessons:
    """What nbval is told about this course's notebooks."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """A reader's own notebooks, which may lie in notebooks/ too, are left alone."""
        own = {path.resolve() for path in lessons.every()}
        foreign = collection_path.suffix == ".ipynb" and collection_path.resolve() not in own
        return True if foreign else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """After each exercise's stub its solution runs, in the lesson's kernel.

        So one run shows that every check says right, and that the outputs of the cells below are
        those of the student's notebook, which `make lessons` stored, whether solved or not.
        """
        for item in list(items):
            if isinstance(item, IPyNbCell) and "exercise" in lessons.tags(item.cell):
                items.insert(items.index(item) + 1, _solution(item))


def pytest_configure(config: pytest.Config) -> None:
    # Registered by name: as a hook of this file it would hold for tests/ alone.
    config.pluginmanager.register(Lessons())


def pytest_collection_finish() -> None:
    # Thousands of tests stay to the end: gc.collect() need not look at each of them every time.
    gc.freeze()


def _solution(stub: IPyNbCell) -> IPyNbCell:
    """The test that runs the solution of this stub's exercise and wants its check to say right."""
    cells = stub.parent.nb.cells
    (code,) = [code for at, code in lessons.exercises(stub.parent.nb) if cells[at] is stub.cell]
    call = stub.cell.source.splitlines()[-1]
    source = f'{code}\n_found = {call}\nassert _found.state == "right", _found.hint'
    return IPyNbCell.from_parent(
        stub.parent,
        name=f"Solution of {stub.cell.id}",
        cell_num=stub.cell_num,
        cell=nbformat.v4.new_code_cell(source),
        options=defaultdict(bool),  # nbval's: nothing is compared
    )


def chromium(kind: "BrowserType") -> str | None:
    """The program to start: the one that COURSE_CHROMIUM names, the system's, playwright's own."""
    if given := os.environ.get("COURSE_CHROMIUM"):
        return given
    own = kind.executable_path
    return next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)


# For one file at a time: playwright keeps an event loop in this thread, and others start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A Chromium without a window, for tests with the mark `browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = chromium(playwright.chromium)
        if path is None:
            names = ", ".join(NAMES)
            pytest.fail(f"There is no Chromium: install one of {names}, or set COURSE_CHROMIUM.")
        started = playwright.chromium.launch(executable_path=path, timeout=120_000)
        yield started
        started.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the whole site, built from the checkout; a warning of Sphinx's fails it.

    It is built once: the worker that comes second waits for the first one's.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, done = shared / "site", shared / "site.done"
    with FileLock(shared / "site.lock"):
        if not done.exists():
            _build(out)
            done.touch()
    return out


def _build(out: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "site", ".", out]
    plain = {**os.environ, "LC_ALL": "C"}  # Sphinx ends at a locale that the system has not
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
