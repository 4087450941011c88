"""Make the course's environment: `python3 tools/environment.py [--dev] [--check]`.

It makes .venv beside this folder from requirements.txt (with --dev from requirements-dev.txt) and
installs the helpers into it, once; again only when the lists change. A folder wheels/ beside the
lists takes the network's place. It needs the standard library alone. What is missing it says in
one line. With --check it goes on to tools/ready.py, which says whether lessons can run here.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.environment import NEWEST, OLDEST, ROOT, check, wrong_python

# What stands above needs no newer syntax than Python 3.6 has, and so does the parse of what stands
# below: an old Python gets as far as this line.
if __name__ == "__main__" and wrong_python():
    sys.exit(wrong_python())

VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LISTS = ("requirements.txt", "requirements-dev.txt")
ROOM = 3 * 10**9
# Python 3.11 brings an older pip, 22 to 24, which takes twice as long over the same list.
PIP = "pip==26.3"
FULL = "The disk is too full: .venv needs 3 GB, with CUDA 12. Make room, then run this again."
CUDA = (
    "No NVIDIA card seen. To do without PyTorch's gigabytes of CUDA, press Ctrl-C and run: "
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make lab"
)


def has_wheels() -> bool:
    """Whether packages lie in wheels/ beside the lists, as `make workshop WHEELS=1` puts them."""
    return any((ROOT / "wheels").glob("*.whl"))


def works() -> bool:
    """Whether .venv has pip and a Python that the course runs on."""
    # pip's list of its own files comes last: there is none where an install of pip broke off.
    code = (
        "import importlib.metadata, pip, sys; importlib.metadata.files('pip') or sys.exit(1); "
        f"sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    )
    try:
        return subprocess.run([PYTHON, "-c", code], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def make_venv() -> None:
    """Make .venv anew, with pip and nothing else in it."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This Python has no {' and no '.join(missing)} module. On Debian and Ubuntu: sudo apt "
            "install python{}.{}-venv -- then run this again.".format(*sys.version_info)
        )
    if shutil.disk_usage(ROOT).free < ROOM:
        sys.exit(FULL)
    import venv

    print(f"Making .venv with Python {sys.version.split()[0]}.", flush=True)
    # In this process rather than as `python -m venv`, so that it also works when the Python that
    # runs is the one of the .venv to be replaced.
    venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=True).create(VENV)


def reason(said: str) -> str:
    """Why an install failed, in one line with the remedy; empty where `said` tells it best."""
    if re.search(r"No space left on device|\[Errno 28\]|not enough space on the disk", said):
        return FULL
    if re.search("(?i)connection broken|Max retries exceeded|timed out|Could not fetch URL", said):
        return (
            "The package registry cannot be reached. Check the network, the proxy and pip's "
            "settings, then run this again."
        )
    absent = re.search(r"No matching distribution found for (\S+)", said)
    if absent:
        where = "folder wheels/ (rename it to use the network)" if has_wheels() else "registry"
        return (
            f"The {where} has no {absent[1]} for Python {sys.version.split()[0]} on this system. "
            "The lists hold for 64-bit Linux (glibc 2.28 or newer), macOS 14 or newer on Apple "
            "silicon, and Windows."
        )
    return ""


def pip_install(*arguments: str) -> None:
    """Run `pip install` in .venv. Its complaints are shown, and kept to tell the reason by."""
    command = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if has_wheels():
        command += ["--no-index", "--find-links", ROOT / "wheels"]
    said = ""
    with subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as pip:
        for line in pip.stderr:
            sys.stderr.write(line)
            said += line
    if pip.returncode:
        sys.exit(reason(said) or "pip failed. What it says about it stands above.")


def compile_packages(workers: int) -> None:
    """Compile what is installed by several processes at once, where pip has one.

    Some packages hold templates that are no Python, so what compileall says and returns is nothing
    to a reader.
    """
    command = [PYTHON, "-m", "compileall", "-qq", "-j", str(workers), VENV / "lib"]
    quiet = subprocess.DEVNULL
    subprocess.run(command, cwd=ROOT, stdout=quiet, stderr=quiet, check=False)


def ensure(dev: bool = False) -> None:
    """Make .venv hold what the lists say; does nothing where it does. Ends the script if it fails.

    A note in .venv names this folder and holds a digest of each list whose install has finished.
    """
    file = VENV / "course.json"
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        note = {}
    # Scripts in .venv hold its path, so one that was moved or copied is made anew.
    sound = note.get("root", str(ROOT)) == str(ROOT) and works()
    names = LISTS if dev else LISTS[:1]
    wanted = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in names}
    if sound and wanted.items() <= note.items():
        print("The environment .venv is up to date.")
        return
    if not sound:
        make_venv()
        note = {}
        elsewhere = has_wheels() or "PIP_EXTRA_INDEX_URL" in os.environ
        if sys.platform == "linux" and not elsewhere and shutil.which("nvidia-smi") is None:
            print(CUDA, flush=True)
    file.write_text(json.dumps({"root": str(ROOT)}), encoding="utf-8")
    if not has_wheels():
        try:
            pip_install("--retries", "1", PIP)
        except SystemExit:
            print("Going on with the pip that Python brings.", flush=True)
    pip_install("--no-compile", "-r", names[-1])
    compile_packages(1 if sound else min(8, os.cpu_count() or 1))  # little is new in a sound one
    # Built with the setuptools that the list pins, hence without a second, isolated download.
    pip_install("--no-build-isolation", "--no-deps", "-e", ".")
    file.write_text(json.dumps({**note, **wanted, "root": str(ROOT)}), encoding="utf-8")
    print("The environment .venv is ready.")


def main(arguments: list[str] | None = None) -> int:
    """The script; returns its exit status."""
    parser = argparse.ArgumentParser(description="Make the course's environment, .venv.")
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--check", action="store_true", help="then say whether lessons can run")
    options = parser.parse_args(arguments)
    # An environment that a person made and entered, such as conda's, is as good as .venv.
    entered = options.check and not check()
    try:
        if not entered:
            ensure(options.dev)
        if not options.check:
            return 0
        python = sys.executable if entered else PYTHON
        return subprocess.run([python, "-m", "tools.ready"], cwd=ROOT).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        otherwise = f"The environment cannot be made: {error}. Close what uses .venv, delete it, "
        sys.exit(reason(str(error)) or otherwise + "then run this again.")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on from here.")


if __name__ == "__main__":
    sys.exit(main())
