"""What is wrong with the environment that runs this: `check()` says it in sentences.

It needs the standard library alone. tools/environment.py takes from here which Pythons will do, and
must be able to say so under an old one: hence the quotes around some type hints.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The Pythons that the pinned PyTorch is published for.
OLDEST, NEWEST = (3, 11), (3, 14)
SUPPORTED = "Python {}.{} to {}.{}".format(*OLDEST, *NEWEST)
# The second part of requirements.txt starts with this line.
BROUGHT_IN = "# Brought in by"
MEND = (
    "Start JupyterLab by `make lab`, which uses the course's own environment, or mend this one: in "
    f"the course's folder, {sys.executable} -m pip install -r requirements.txt -e ."
)


def direct(text: str) -> "dict[str, str]":
    """Name and version of each package that a requirements list asks for by itself.

    `text` is the list; what stands below the line "# Brought in by ..." is left out, and so is a
    package that is not for this Python ("; python_version < '3.14'").
    """
    pins = re.compile(r"^([\w.-]+)==([^\s;#]+)(?: ; python_version < '3\.(\d+)')?", re.M)
    found = pins.findall(text.partition(BROUGHT_IN)[0])
    return {name: v for name, v, end in found if not end or sys.version_info[:2] < (3, int(end))}


def wrong_python() -> str:
    """A sentence about a Python that the course does not run on; empty for one that will do."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return ""
    return (
        f"This is Python {sys.version.split()[0]}, and the course needs {SUPPORTED}. Install one "
        "of them; if it is not found, name it: make lab PYTHON=python3.12, or without make "
        "py -3.12 tools\\environment.py"
    )


def installed(name: str) -> str:
    """The version of a package that can be imported here; empty where there is none."""
    from importlib import metadata

    try:
        # "2.13.0+cpu" is 2.13.0 built for the CPU alone.
        return metadata.version(name).partition("+")[0] if importlib.util.find_spec(name) else ""
    except (ImportError, ValueError):
        return ""


def lessons_helpers() -> str:
    """What `import helpers` finds in a lesson: a file's path, empty for nothing."""
    # Asked of a new Python in the lessons' folder, since in this one ours are imported already.
    code = "import importlib.util as u; s = u.find_spec('helpers'); print(s and s.origin or '')"
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, cwd=ROOT / "notebooks", text=True).strip()


def check() -> "list[str]":
    """What is wrong with the environment that runs this, and how to mend it, a sentence each.

    It looks at the Python, at what requirements.txt asks for (what is missing, what has another
    version), and at what `import helpers` finds. Empty when all is well. Never raises.
    """
    if wrong_python():
        return [wrong_python()]
    found = []
    try:
        wanted = direct((ROOT / "requirements.txt").read_text(encoding="utf-8"))
        have = {name: installed(name) for name in wanted}
        absent = [name for name in wanted if not have[name]]
        if absent:
            found.append(f"Not installed: {', '.join(absent)}. {MEND}")
        for name, version in wanted.items():
            if have[name] and have[name] != version:
                found.append(f"{name} is {have[name]}, the lessons were run with {version}. {MEND}")
        place = lessons_helpers()
        if not place:
            found.append(f"The course's own package, helpers, is not installed. {MEND}")
        elif Path(place).resolve() != ROOT / "helpers" / "__init__.py":
            found.append(f"`import helpers` finds another, {place}. Uninstall that one. {MEND}")
    except Exception as error:
        found.append(f"This could not be checked to the end ({type(error).__name__}: {error}).")
    return found
