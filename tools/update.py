"""The newest lessons without the loss of an answer, and a lesson as it was published.

`python -m tools.update` pulls what is new, as nbgitpuller does it: a notebook that you changed
stays as you have it, to the last byte, every other file is renewed, and a file that you deleted
(without telling git) comes back. (.gitattributes tells git to merge notebooks as a whole, never
line by line.)

`python -m tools.update --pristine 03` gives lesson 03 back as published, and any other notebook by
its file's name. It first puts your own version into the folder kept/, with the time in its name. It
needs no network, and no package besides the standard library, so that `python3 tools/update.py`
will do where the course is not installed.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
# Where a workshop's copy, which is no git clone, has its notebooks as they were handed out.
PRISTINE = ".pristine"


class UpdateError(Exception):
    """What stopped the work and what to do about it, in one line for a person."""


def git(root: Path, *arguments: str) -> bytes:
    """What git prints; UpdateError with its own last words where it fails."""
    try:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise UpdateError("There is no git here. Install it, then run this again.") from None
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines() or ["nothing more"]
        raise UpdateError(f"git {arguments[0]} failed. It says: {words[-1]}") from error


def plain() -> dict[str, str]:
    """The environment, with git in English, which nbgitpuller reads, and as it is by default."""
    settings = {
        "commit.gpgSign": "false",
        "merge.ff": "true",
        "diff.renames": "false",  # or nbgitpuller misses a new file that was another's name before
        "merge.renames": "true",
    }
    found = {**os.environ, "LC_ALL": "C", "GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return found


def is_clone(root: Path) -> bool:
    """Whether `root` is the top of a git clone (a folder inside another clone is none)."""
    return (root / ".git").exists()


def upstream(root: Path) -> tuple[str, str]:
    """(remote, branch) that this clone follows; UpdateError where it follows none."""
    git(root, "rev-parse", "--git-dir")  # says what else may be wrong: no git, another's folder
    try:
        name = git(root, "rev-parse", "--abbrev-ref", "@{upstream}").decode().strip()
    except UpdateError as error:
        raise UpdateError(
            "This clone follows no branch elsewhere, so there is nothing to pull. To follow one: "
            "git branch --set-upstream-to=origin/main"
        ) from error
    remote, _, branch = name.partition("/")
    return remote, branch


def published(root: Path) -> str:
    """The newest published commit that this clone holds; its own last one if it follows none."""
    for name in ("@{upstream}", "origin/HEAD"):
        try:
            return git(root, "merge-base", "HEAD", name).decode().strip()
        except UpdateError:
            continue
    return "HEAD"


def notebooks(root: Path) -> dict[str, bytes]:
    """The contents of each published notebook, by its path in notebooks/, as more/03_x.ipynb.

    UpdateError if this copy holds none.
    """
    shelf = root / PRISTINE
    if shelf.is_dir():
        paths = sorted(shelf.rglob("*.ipynb"))
        return {path.relative_to(shelf).as_posix(): path.read_bytes() for path in paths}
    if is_clone(root):
        commit = published(root)
        files = git(root, "ls-tree", "-r", "--name-only", commit, "notebooks/").decode().split("\n")
        names = [file.removeprefix("notebooks/") for file in files if file.endswith(".ipynb")]
        return {name: git(root, "show", f"{commit}:notebooks/{name}") for name in names}
    raise UpdateError(
        "This copy is neither a git clone nor a workshop's, so it does not hold the lessons as "
        "published. Download it again into another folder."
    )


def short(name: str) -> str:
    """What to write for a notebook after LESSON=: a lesson's number, or the name of its file."""
    return PurePosixPath(name).stem if "/" in name else name.partition("_")[0]


def keep(path: Path, root: Path) -> Path:
    """Copy a reader's notebook into kept/, with the time in its name; never over another file."""
    folder = root / "kept"
    folder.mkdir(exist_ok=True)
    stem, number = f"{path.stem}_{datetime.now():%Y-%m-%d_%H%M%S}", 1
    copy = folder / f"{stem}.ipynb"
    while copy.exists():
        number += 1
        copy = folder / f"{stem}_{number}.ipynb"
    copy.write_bytes(path.read_bytes())
    return copy


def pristine(lesson: str, root: Path) -> str:
    """Put a notebook back as published, the reader's version into kept/; what was done, in words.

    `lesson` is a lesson's number, as 03 or 3, or the name of any notebook's file. UpdateError if
    there is none such.
    """
    wanted = Path(lesson).stem
    wanted = wanted.zfill(2) if wanted.isdecimal() else wanted
    shelf = notebooks(root)
    names = [name for name in shelf if wanted in (short(name), PurePosixPath(name).stem)]
    if len(names) != 1:
        known = ", ".join(map(short, shelf))
        raise UpdateError(f"There is no lesson {lesson!r}. Name one as it stands here: {known}.")
    path = root / "notebooks" / names[0]
    if path.exists() and path.read_bytes() == shelf[names[0]]:
        return f"{path.name} is as it was published already."
    done = f"{path.name} is as it was published."
    if path.exists():
        done += (
            f" Your version is {keep(path, root).relative_to(root).as_posix()}. Where JupyterLab "
            "has the lesson open: File > Reload Notebook from Disk."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shelf[names[0]])
    return done


def update(root: Path) -> str:
    """Pull what is new and keep what the reader wrote; what happened, in words.

    UpdateError when it cannot: the reader's files are then as they were.
    """
    if not is_clone(root):
        raise UpdateError(
            "This copy is no git clone, so it cannot pull. Unpack the new copy into a folder of "
            "its own; your answers stay where they are."
        )
    if importlib.util.find_spec("nbgitpuller") is None:
        raise UpdateError("nbgitpuller is not installed. Run `make lab` once, then this.")
    if (root / ".git" / "MERGE_HEAD").exists():
        raise UpdateError(
            "A merge is not finished here. Finish it (git commit --all), then run this again."
        )
    remote, branch = upstream(root)
    if remote != "origin":  # nbgitpuller knows no other
        raise UpdateError(f"This clone follows {remote}, and only origin can be pulled from.")
    url = git(root, "remote", "get-url", remote).decode().strip()
    before = published(root)
    command = [sys.executable, "-m", "nbgitpuller.pull", url, branch, str(root)]
    pull = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=plain())
    if pull.returncode:
        if (root / ".git" / "MERGE_HEAD").exists():
            git(root, "merge", "--abort")
        said = pull.stdout.decode(errors="replace").strip().splitlines() or ["nothing said"]
        if "'ls-remote'" in said[-1] or "'fetch'" in said[-1]:
            said.append(f"Is there a network, and does {url} answer?")
        why = [line for line in said if line.startswith(("fatal: ", "error: ", "CONFLICT", "Is "))]
        raise UpdateError(
            f"The update did not work. Your files are as they were. {(why or said)[-1]}"
        )
    lines = pull.stdout.decode(errors="replace").splitlines()
    return "\n".join([*(line for line in lines if line.startswith("Renamed ")), news(root, before)])


def news(root: Path, before: str) -> str:
    """What came since the commit `before`, and which notebooks stayed as the reader has them."""
    now = published(root)
    if now == before:
        return "Nothing is new. Your answers are as they were."
    files = git(root, "diff", "--name-only", "--diff-filter=d", before, now).decode().splitlines()
    renewed, kept = [], []
    for file in files:
        path = root / file
        # A notebook that is not there has been renamed by the reader.
        if not file.startswith("notebooks/") or path.suffix != ".ipynb" or not path.exists():
            continue
        if path.read_bytes() == git(root, "show", f"{now}:{file}"):
            renewed.append(f"New or renewed: {path.name}")
        else:
            kept.append(
                f"Kept as you have it: {path.name}, though there is a new one. To get that: make "
                f"pristine LESSON={short(file.removeprefix('notebooks/'))} (yours goes into kept/)"
            )
    last = "Now `make lab`, which also renews the packages if they changed."
    return "\n".join([f"Updated, {len(files)} files.", *renewed, *kept, last])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.update", description="Get what is new and keep every answer."
    )
    words = "put this lesson, 03 or the name of its file, back as published"
    parser.add_argument("--pristine", metavar="LESSON", nargs="?", const="", help=words)
    lesson = parser.parse_args(arguments).pristine
    try:
        print(update(ROOT) if lesson is None else pristine(lesson, ROOT))
    except (UpdateError, OSError) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
