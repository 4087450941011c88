"""The course's environment: make one, and say what is wrong with one.

As a script, `python3 tools/environment.py [--dev]` makes .venv beside this folder from
requirements.txt (with --dev from requirements-dev.txt) and installs the helpers into it, once;
again only when the lists change. A folder wheels/ beside the lists takes the network's place. It
needs the standard library alone, any system's Python will do to start it, and what is missing it
says in one line. With --check it then tries what a lesson needs (packages, a kernel in which torch
computes, JupyterLab, a browser) and ends in one verdict. In a notebook, `check()` says in words
what is wrong with the environment that the notebook runs in.
"""

import argparse
import errno
import hashlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Callable
from pathlib import Path

# The Pythons that the pinned PyTorch is published for.
OLDEST, NEWEST = (3, 11), (3, 14)
SUPPORTED = "Python %d.%d to %d.%d" % (OLDEST + NEWEST)  # noqa: UP031

# What stands above needs no newer syntax than Python 3.6 has, and so does the parse of what stands
# below: an old Python gets as far as this line.
if __name__ == "__main__" and not OLDEST <= sys.version_info[:2] <= NEWEST:
    sys.exit(
        f"This course needs {SUPPORTED}, and this is Python {sys.version.split()[0]}. Install one "
        "of them, or name one that you have: make lab PYTHON=..."
    )

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LISTS = ("requirements.txt", "requirements-dev.txt")
# The second part of requirements.txt starts with this line.
BROUGHT_IN = "# Brought in by"
MEND = (
    "run `make lab` again, or where the environment is not its .venv: "
    "pip install -r requirements.txt -e ."
)

FULL = "The disk is full. Make room, then run the same command again."
GB = 10**9
ROOM_NEW, ROOM_NEW_CUDA, ROOM_RENEWED = 3 * GB, 12 * GB, 1 * GB
# The settings of pip that say where else packages come from. On Linux the public registry's torch
# brings CUDA along, so without one of these it will.
SOURCES = ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_INDEX")

# What a lesson needs of torch, in four lines, and how long a slow computer may take over it.
TRIAL = """import torch
table = torch.nn.Embedding(3, 2)
table(torch.tensor([2, 0, 2])).sum().backward()
print(table.weight.grad[:, 0].tolist())"""
TRIAL_SECONDS = 120

NO_ROOM = re.compile(r"No space left on device|\[Errno 28\]|not enough space on the disk", re.I)
NO_NETWORK = re.compile(
    r"Failed to establish a new connection|NewConnectionError|ConnectTimeoutError|"
    r"name resolution|getaddrinfo failed|Connection refused|Network is unreachable|"
    r"Max retries exceeded|ProxyError|ReadTimeoutError|CERTIFICATE_VERIFY_FAILED|"
    r"Could not fetch URL",
    re.I,
)
NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
BIG_DOWNLOAD = re.compile(r"Downloading (?:\S*/)?(\S+) \((\d{2,}\.?\d* MB|[\d.]+ GB)\)")


class SetUpError(Exception):
    """What stopped the work, and the remedy, in one line for a person."""


def say(line: str) -> None:
    print(line, flush=True)


def in_venv(program: str) -> Path:
    """The path of a program inside .venv, on Windows or elsewhere."""
    if os.name == "nt":
        return VENV / "Scripts" / f"{program}.exe"
    return VENV / "bin" / program


def digests(dev: bool) -> dict[str, str]:
    """A digest of each requirements list in use, by the list's name."""
    names = LISTS if dev else LISTS[:1]
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in names}


def record() -> dict:
    """What the last finished install noted in .venv; empty where none finished."""
    try:
        return dict(json.loads((VENV / "course.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def venv_version() -> tuple[int, ...] | None:
    """(major, minor) of a .venv whose Python runs and has pip; None for any other."""
    code = "import pip, sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([in_venv("python"), "-c", code], capture_output=True, text=True)
        return tuple(int(part) for part in answer.stdout.split()) or None
    except (OSError, ValueError):
        return None


def wheels() -> list[Path]:
    """The packages that lie in wheels/ beside the lists, as `make workshop WHEELS=1` puts them."""
    return sorted((ROOT / "wheels").glob("*.whl"))


def expects_cuda() -> bool:
    """Whether torch will come with CUDA: the public registry's does, on Linux."""
    elsewhere = wheels() or any(os.environ.get(name) for name in SOURCES)
    return sys.platform == "linux" and not elsewhere


def has_torch() -> bool:
    """Whether .venv holds the torch that the list asks for, on Linux or macOS."""
    version = direct((ROOT / LISTS[0]).read_text(encoding="utf-8"))["torch"]
    return any(VENV.glob(f"lib/python*/site-packages/torch-{version}*.dist-info"))


def check_room(anew: bool) -> None:
    """Raise SetUpError when the disk has too little room to make (or renew) the environment."""
    needed = (ROOM_NEW_CUDA if expects_cuda() else ROOM_NEW) if anew else ROOM_RENEWED
    free = shutil.disk_usage(ROOT).free
    if free < needed:
        raise SetUpError(
            f"The disk has {free / GB:.1f} GB free and the environment needs about "
            f"{needed / GB:.0f} GB. Make room, then run the same command again."
        )


def make_venv() -> None:
    """Make .venv anew, with pip and nothing else in it."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetUpError(
            f"This Python has no {' and no '.join(missing)} module. On Debian and Ubuntu: "
            f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            " -- then run the same command again."
        )
    import venv

    say(f"Making .venv with Python {sys.version.split()[0]}.")
    try:
        # In this process rather than as `python -m venv`, so that it also works when the Python
        # that runs is the one of the .venv to be replaced.
        builder = venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=True)
        builder.create(VENV)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise SetUpError(
            f"Could not make .venv: {error}. Close what uses it, delete the folder .venv, "
            "then run the same command again."
        ) from error


def progress(line: str) -> str:
    """What a person should see of a line of pip's output; mostly nothing."""
    download = BIG_DOWNLOAD.search(line)
    if download:
        return f"Downloading {download[1]} ({download[2]})."
    if line.startswith("Installing collected packages: ") and "," in line:
        return f"Installing {line.count(',') + 1} packages."
    return ""


def reason(log: str) -> str:
    """Why pip failed, from its output, in one line with the remedy."""
    if NO_ROOM.search(log):
        return FULL
    if NO_NETWORK.search(log):
        return (
            "The package registry cannot be reached. Check the network, the proxy and pip's "
            "settings, then run the same command again."
        )
    absent = NOT_FOUND.search(log)
    if absent and wheels():
        return (
            f"The folder wheels/ has no {absent[1]} for Python {sys.version.split()[0]} on this "
            "system. Rename that folder to install from the network, or use another Python."
        )
    if absent:
        return (
            f"The registry has no {absent[1]} for Python {sys.version.split()[0]} on this system. "
            f"The lists hold for {SUPPORTED}, on Linux (glibc 2.28 or newer), macOS 14 or newer "
            "on Apple silicon, and Windows, all 64-bit."
        )
    errors = [line for line in log.splitlines() if line.lower().startswith("error")]
    return f"pip failed: {errors[-1] if errors else 'it says no more'}"


def pip_install(*arguments: str) -> None:
    """Run `pip install` in .venv: its output to a log, short news of it to the person."""
    log = VENV / "install.log"
    command = [in_venv("python"), "-m", "pip", "install", "--no-input"]
    command += ["--disable-pip-version-check", *arguments]
    if wheels():
        command += ["--no-index", "--find-links", str(ROOT / "wheels")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    with process, log.open("a", encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            news = progress(line)
            if news:
                say(news)
    if process.returncode:
        raise SetUpError(f"{reason(''.join(lines))} pip's own words: {log.relative_to(ROOT)}")


def ensure(dev: bool = False) -> None:
    """Make .venv hold what the lists say; does nothing where it does.

    Raises SetUpError, whose text is one line for a person, when it cannot.
    """
    wanted, noted, version = digests(dev), record(), venv_version()
    sound = (
        version is not None
        and OLDEST <= version <= NEWEST
        and noted.get("version", list(version)) == list(version)
        # Scripts in .venv hold its path, so one that was moved or copied does not work.
        and noted.get("root", str(ROOT)) == str(ROOT)
    )
    have = noted.get("lists", {}) if sound else {}
    if wanted.items() <= have.items():
        say("The environment .venv is up to date.")
        return
    check_room(anew=not sound)
    if not sound:
        make_venv()
    (VENV / "course.json").unlink(missing_ok=True)
    (VENV / "install.log").unlink(missing_ok=True)
    if expects_cuda() and not has_torch() and shutil.which("nvidia-smi") is None:
        say(
            "No NVIDIA card seen: torch will bring gigabytes of CUDA. To do without, press Ctrl-C "
            "and run: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make lab"
        )
    name = LISTS[-1] if dev else LISTS[0]
    say(f"Installing {name}. The first time this takes minutes.")
    pip_install("-r", name)
    # Built with the setuptools that the list pins, hence without a second, isolated download.
    pip_install("--no-build-isolation", "--no-deps", "-e", ".")
    note = {"root": str(ROOT), "version": venv_version(), "lists": {**have, **wanted}}
    (VENV / "course.json").write_text(json.dumps(note), encoding="utf-8")
    say("The environment .venv is ready.")


def main(arguments: list[str] | None = None) -> int:
    """The script; returns its exit status."""
    parser = argparse.ArgumentParser(description="Make the course's environment, .venv.")
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--check", action="store_true", help="then say whether lessons can run")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            ensure(options.dev)
            return 0
        # An environment that a person made and entered, such as conda's, is as good as .venv.
        entered = not find(wrong_packages) + find(wrong_helpers)
        if not entered:
            ensure(options.dev)
        python = sys.executable if entered else str(in_venv("python"))
        code = "import sys; from helpers import environment; sys.exit(environment.ready())"
        # Not in this folder, where `import helpers` would succeed without being installed.
        return subprocess.run([python, "-c", code], cwd=ROOT / "notebooks").returncode
    except SetUpError as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(FULL if full else f"The environment cannot be made: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130


def direct(text: str) -> dict[str, str]:
    """Name and version of each package that a requirements list asks for by itself.

    `text` is the list; what stands below the line "# Brought in by ..." is left out, and so is a
    package that is not for this Python ("; python_version < '3.14'").
    """
    pins = re.compile(r"^([\w.-]+)==([^\s;#]+)(?: ; python_version < '3\.(\d+)')?", re.M)
    found = pins.findall(text.partition(BROUGHT_IN)[0])
    return {name: v for name, v, end in found if not end or sys.version_info[:2] < (3, int(end))}


def wrong_python() -> list[str]:
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return []
    have = sys.version.split()[0]
    return [f"This is Python {have}; the course needs {SUPPORTED}: install one, then {MEND}"]


def wrong_packages() -> list[str]:
    from importlib import metadata

    found = []
    for name, version in direct((ROOT / LISTS[0]).read_text(encoding="utf-8")).items():
        try:
            # "2.13.0+cpu" is 2.13.0 built for the CPU alone.
            have = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found.append(f"{name} is not installed: {MEND}")
            continue
        if have != version:
            found.append(f"{name} is {have}, and the lessons were run with {version}: {MEND}")
    return found


def wrong_helpers() -> list[str]:
    spec = importlib.util.find_spec("helpers")
    places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or []]
    if not places:
        return [f"The course's package helpers is not installed: {MEND}"]
    if ROOT / "helpers" not in places:
        return [f"`import helpers` finds another package, {places[0]}: {MEND}"]
    return []


def wrong_threads() -> list[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name)
        if value is not None and not (value.isdecimal() and 1 <= int(value) <= (cores or 1)):
            found.append(
                f"The variable {name} is {value!r}, and this computer has {cores} cores for you: "
                "PyTorch will be slow. Unset it, then restart Jupyter"
            )
    return found


def wrong_room() -> list[str]:
    found = []
    free = shutil.disk_usage(ROOT).free
    if free < GB / 2:
        found.append(f"The disk has {free / GB:.1f} GB free, and 0.5 GB are needed: make room")
    # psutil comes with ipykernel; without it wrong_packages() has something to say.
    if importlib.util.find_spec("psutil"):
        import psutil

        memory = psutil.virtual_memory().available
        if memory < 2 * GB:
            found.append(
                f"{memory / GB:.1f} GB of memory are free, and the lessons need up to 2 GB: close "
                "other programs and notebooks"
            )
    return found


def wrong_kernel() -> list[str]:
    from jupyter_client.manager import start_new_kernel

    said = []

    def hear(message: dict) -> None:
        said.append(message["content"])

    manager, client = start_new_kernel(
        kernel_name="python3", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        reply = client.execute_interactive(TRIAL, timeout=TRIAL_SECONDS, output_hook=hear)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        problem = "{ename}: {evalue}".format(**reply["content"])
        return [f"torch does not run in a notebook's kernel: {problem}"]
    printed = "".join(content.get("text", "") for content in said).strip()
    if printed != "[1.0, 0.0, 2.0]":
        return [f"torch computes {printed or 'nothing'} where [1.0, 0.0, 2.0] is right: {MEND}"]
    return []


def wrong_jupyterlab() -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    # A proxy is for other computers' pages.
    fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + TRIAL_SECONDS
            while time.monotonic() < end and server.poll() is None:
                try:
                    with fetch(f"http://127.0.0.1:{port}/lab?token={token}", timeout=10) as page:
                        if b"JupyterLab" in page.read():
                            return []
                except OSError:
                    time.sleep(0.2)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        log.seek(0)
        words = log.read().strip().splitlines() or ["nothing"]
    return [f"JupyterLab did not answer at 127.0.0.1:{port}. Its last words: {words[-1]}"]


def browser() -> str:
    """A line on whether there is a browser. To be without one is no fault: a server has none."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return "    no browser here: open the address that JupyterLab prints where there is one"
    return "ok  a browser"


def find(look: Callable[[], list[str]]) -> list[str]:
    """The sentences of one of the looks above; one that says so where it could not look."""
    try:
        return [f"{sentence}." for sentence in look()]
    except Exception as error:
        what = look.__name__.partition("_")[2]
        return [f"Could not check {what} ({type(error).__name__}: {error})."]


def check() -> list[str]:
    """What is wrong with the environment that runs this, and how to mend it.

    Returns one sentence for each thing: the Python, a package that is missing or has another
    version than requirements.txt says, the helpers, threads, free disk and memory. Empty when all
    is well. Never raises: where it cannot look, it says so.
    """
    looks = (wrong_python, wrong_packages, wrong_helpers, wrong_threads, wrong_room)
    return [sentence for look in looks for sentence in find(look)]


def ready() -> int:
    """Try all that a lesson needs, print a line for each and the verdict; 0 if it can run, or 1."""
    parts = (
        (f"Python {sys.version.split()[0]}", wrong_python),
        ("the packages that the lessons were run with", wrong_packages),
        ("the course's own helpers", wrong_helpers),
        ("no setting that makes PyTorch slow", wrong_threads),
        ("enough disk and memory are free", wrong_room),
        ("a notebook's kernel starts, and torch computes in it", wrong_kernel),
        ("JupyterLab starts and answers", wrong_jupyterlab),
    )
    wrong = 0
    for what, look in parts:
        sentences = find(look)
        wrong += len(sentences)
        for line in sentences or [what]:
            say(f"{'NO ' if sentences else 'ok '} {line}")
    say(browser())
    if wrong:
        say(f"Not ready. What says NO above ({wrong}) is to be mended; then run this again.")
        return 1
    say("Ready. Every lesson can run on this computer.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
