"""In a real browser: lessons run in JupyterLab, checks say their words.

One JupyterLab on a free port shows a copy of the lessons, so nothing is written into the checkout.
The time-outs are long since CI's machines are slow and busy; no test here asserts a speed.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tools import budget, lessons

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
SECONDS = 180  # for any one thing to happen
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
COMPLAINT = ", ".join(
    f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr")
)
Open = Callable[[str], AbstractContextManager["Lesson"]]


class Lesson:
    """A lesson that is open in JupyterLab."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.cells = page, lessons.read(path).cells
        self.notebook = page.locator(".jp-Notebook")
        self.code = [n for n, cell in enumerate(self.cells) if cell.cell_type == "code"]
        self.stubs = [n for n in self.code if "exercise" in lessons.tags(self.cells[n])]

    def cell(self, number: int) -> Locator:
        return self.notebook.locator(".jp-Cell").nth(number)

    def said(self, number: int) -> Locator:
        """What stands below a cell."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def prompts(self) -> list[str]:
        """The prompts of the code cells that are not folded; a folded one shows none."""
        found = self.notebook.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        return [prompt for prompt in found if prompt.strip()]

    def complaints(self) -> list[str]:
        """The errors and the stderr that cells show."""
        return self.notebook.locator(COMPLAINT).all_text_contents()

    def choose(self, menu: str, item: str) -> None:
        """Choose an item of one of JupyterLab's menus."""
        self.page.locator("#jp-MainMenu").get_by_text(menu, exact=True).click()
        self.page.locator(".lm-Menu").get_by_text(item, exact=True).click()

    def until(self, prompt: str) -> None:
        """Wait until every prompt that is shown is like the pattern, or a cell complains."""
        self.page.wait_for_function(
            """([prompt, complaint]) => document.querySelector(complaint) ||
            [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].every(
                found => !found.textContent.trim() || RegExp(prompt).test(found.textContent))""",
            arg=[prompt, COMPLAINT],
        )

    def run_all(self) -> None:
        """Restart and Run All: prompts in order, no complaint, every exercise not attempted."""
        expect(self.notebook.locator(".jp-Cell")).to_have_count(len(self.cells))
        expect(self.page.locator(IDLE)).to_be_visible()
        # The prompts that are stored are in order too, and would end the waiting at once.
        self.choose("Edit", "Clear Outputs of All Cells")
        self.until(r"^\[ \]:$")
        self.choose("Run", "Restart Kernel and Run All Cells…")
        self.page.get_by_role("button", name="Confirm Kernel Restart").click()
        self.until(r"^\[\d+\]:$")
        assert self.complaints() == []
        expect(self.page.locator(IDLE)).to_be_visible()
        open_ = [n for n, i in enumerate(self.code, 1) if not budget.folded(self.cells[i])]
        assert self.prompts() == [f"[{n}]:" for n in open_]
        assert self.stubs
        for stub in self.stubs:
            expect(self.said(stub)).to_contain_text("Not attempted yet. Replace the dots")

    def answer(self, name: str, code: str, words: str) -> None:
        """Type code in place of the stub of the exercise `name`, run it, read the check's words."""
        stub = next(n for n in self.stubs if lessons.stub_check(self.cells[n])[1] == name)
        call = self.cells[stub].source.splitlines()[-1]
        self.cell(stub).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(f"{code}\n\n{call}")
        self.page.keyboard.press("Shift+Enter")
        expect(self.said(stub)).to_contain_text(re.compile(words))
        assert self.complaints() == []


def stop(server: subprocess.Popen) -> None:
    """End the server and every process that came from it: kernels, and theirs."""
    family = []
    if server.poll() is None:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()  # it ends its kernels itself
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for process in psutil.wait_procs(family, timeout=10)[1]:
        process.kill()


@pytest.fixture(scope="module")
def open_lesson(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """A function that opens a lesson, by its file's stem, in a JupyterLab of our own.

    JupyterLab has its settings and records in a folder of its own too.
    """
    course, own = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("jupyter")
    for folder in ("notebooks", "data"):
        without = shutil.ignore_patterns(".ipynb_checkpoints")
        shutil.copytree(ROOT / folder, course / folder, ignore=without)
    settings = own / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # No question about news and no look for a newer version: both want a network.
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False}), encoding="utf-8"
    )
    with serving(course, own) as (address, token):

        @contextmanager
        def open_(stem: str) -> Iterator[Lesson]:
            path = course / "notebooks" / f"{stem}.ipynb"
            page, addresses, errors = browser.new_page(), [], []
            page.set_default_timeout(1000 * SECONDS)
            expect.set_options(timeout=1000 * SECONDS)
            page.on("request", lambda request: addresses.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"{address}lab/workspaces/{stem}/tree/notebooks/{path.name}?token={token}")
            lesson = Lesson(page, path)
            try:
                yield lesson
            except Exception as error:
                error.add_note(f"{stem}: {' '.join(lesson.prompts())} {lesson.complaints()}")
                raise
            finally:
                page.close()
            assert errors == []
            own_or_inline = (address, "data:", "blob:")
            assert [a for a in addresses if not a.startswith(own_or_inline)] == []

        yield open_


@contextmanager
def serving(course: Path, own: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab's address and token, for as long as it shows the folder `course`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "JUPYTER_PATH")}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        environment[name] = str(own)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # should another take it meanwhile, Jupyter tries the next
    token, log = secrets.token_hex(), own / "log.txt"
    options = [
        "--no-browser",
        "--allow-root",
        f"--ServerApp.root_dir={course}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        # If this process is killed, nobody ends the server: it then does so itself.
        "--ServerApp.shutdown_no_activity_timeout=300",
        "--MappingKernelManager.cull_idle_timeout=300",
        "--MappingKernelManager.cull_interval=60",
    ]
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=course,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt is for pytest, which then ends the server
        )
    try:
        address, deadline = None, time.monotonic() + SECONDS
        while not address:
            said = log.read_text(encoding="utf-8", errors="replace")
            assert server.poll() is None and time.monotonic() < deadline, said
            address = re.search(r"running at:\s.*?(http://[\d.:]+/)", said, re.S)
            time.sleep(0.1)
        yield address[1], token
    finally:
        stop(server)


def test_lesson_00_runs_and_its_check_answers(open_lesson: Open) -> None:
    with open_lesson("00_start_here") as lesson:
        lesson.run_all()
        lesson.answer("numbers_in_the_table", "answer = 13", r"Not right yet\. .*added")
        lesson.answer("numbers_in_the_table", "answer = 10 * 3", r"Right\. ")


def test_lesson_01_runs_folded_and_answers(open_lesson: Open) -> None:
    with open_lesson("01_lookup_tables") as lesson:
        lesson.run_all()
        drawings = [cell for cell in lesson.cells if "hide-input" in lessons.tags(cell)]
        folded = lesson.notebook.locator(".jp-InputPlaceholder")
        assert drawings
        expect(folded).to_have_count(len(drawings))
        stub = "def look_up(ids, weight):\n    return weight"
        lesson.answer("look_up", f"{stub}[ids]", r"Not right yet\. .*switched off")
        right = ".index_select(0, ids.flatten()).reshape(*ids.shape, weight.shape[1])"
        lesson.answer("look_up", stub + right, r"Right\. ")
