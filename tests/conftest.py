"""What several test files share: a browser, and the site that is built from the checkout."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType

from tools import lessons

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class OnlyTheCourses:
    """Leaves a reader's own notebooks alone, which may lie in notebooks/ too."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        own = {path.resolve() for path in lessons.every()}
        foreign = collection_path.suffix == ".ipynb" and collection_path.resolve() not in own
        return True if foreign else None


def pytest_configure(config: pytest.Config) -> None:
    # Registered by name: as a hook of this file it would hold for tests/ alone.
    config.pluginmanager.register(OnlyTheCourses())


def chromium(kind: "BrowserType") -> str | None:
    """The program to start: the one that COURSE_CHROMIUM names, the system's, playwright's own."""
    if given := os.environ.get("COURSE_CHROMIUM"):
        return given
    own = kind.executable_path
    return next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)


# For one file at a time: playwright keeps an event loop in this thread, and others start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A Chromium without a window. Where there is none the test is skipped.

    With COURSE_BROWSER=required, as under `make browser` and in CI, it fails instead.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        path = chromium(playwright.chromium)
        if path is None:
            why = f"There is no Chromium: install one of {', '.join(NAMES)}, or name yours in "
            why += "COURSE_CHROMIUM."
            if os.environ.get("COURSE_BROWSER") == "required":
                pytest.fail(why)
            pytest.skip(why)
        try:
            started = playwright.chromium.launch(executable_path=path, timeout=120_000)
        except Error as error:  # such as Ubuntu's stand-in for a snap that is not installed
            if os.environ.get("COURSE_BROWSER") == "required":
                raise
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the whole site, built from the checkout; a warning of Sphinx's fails it."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "site", ".", out]
    plain = {**os.environ, "LC_ALL": "C"}  # Sphinx ends at a locale that the system has not
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return out
