"""The newest lessons without the loss of an answer, and a lesson as it was published.

`python -m tools.update` pulls what is new, as nbgitpuller does it: a notebook that you changed
stays as you have it, to the last byte, every other file is renewed, and a file that you deleted
(without telling git) comes back. (.gitattributes tells git to merge notebooks as a whole, never
line by line.)
`python -m tools.update --pristine 03` gives lesson 03 back as published, and first puts your own
version into the folder kept/, with the time in its name. The second needs no network, and no
package besides the standard library.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Where a copy that is no git clone, as `make workshop` makes it, has the lessons as published.
PRISTINE = ".pristine"


class UpdateError(Exception):
    """What stopped the work, and the remedy, in one line for a person."""


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


def lessons(root: Path) -> dict[str, bytes]:
    """The published lessons, file name to contents; UpdateError if this copy holds none."""
    found = {path.name: path.read_bytes() for path in sorted((root / PRISTINE).glob("*.ipynb"))}
    if not found and is_clone(root):
        commit = published(root)
        names = git(root, "ls-tree", "--name-only", commit, "notebooks/").decode().split("\n")
        names = [name for name in names if name.endswith(".ipynb")]
        return {Path(name).name: git(root, "show", f"{commit}:{name}") for name in names}
    if not found:
        raise UpdateError(
            "This copy is neither a git clone nor a workshop's, so it does not hold the lessons as "
            "published. Download it again into another folder."
        )
    return found


def keep(path: Path, root: Path) -> Path:
    """Copy a reader's lesson into kept/, under a name with the time that no file has yet."""
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
    """Put the lesson back as published, a reader's version into kept/; what was done, in words.

    `lesson` is its number, as 03 or 3, or the name of its file. UpdateError if there is none such.
    """
    wanted = Path(lesson).stem
    wanted = f"{wanted:0>2}_" if wanted.isdecimal() else wanted
    shelf = lessons(root)
    names = [name for name in shelf if wanted and name.startswith(wanted)]
    if len(names) != 1:
        numbers = ", ".join(name.partition("_")[0] for name in shelf)
        raise UpdateError(f"There is no lesson {lesson!r}. Name one by its number: {numbers}.")
    path = root / "notebooks" / names[0]
    if path.exists() and path.read_bytes() == shelf[names[0]]:
        return f"{path.name} is as it was published already."
    copy = keep(path, root) if path.exists() else None
    path.write_bytes(shelf[names[0]])
    done = f"{path.name} is as it was published."
    if copy is None:
        return done
    return (
        f"{done} Your version is {copy.relative_to(root).as_posix()}. Where JupyterLab has the "
        "lesson open: File > Reload Notebook from Disk."
    )


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
    """What came since the commit `before`, and which of the reader's lessons were kept instead."""
    now = published(root)
    if now == before:
        return "Nothing is new. Your answers are as they were."
    names = git(root, "diff", "--name-only", "--diff-filter=d", before, now).decode().splitlines()
    new = [name for name in names if name.startswith("notebooks/") and name.endswith(".ipynb")]
    new = [name for name in new if (root / name).exists()]  # or the reader has renamed it
    kept = [n for n in new if (root / n).read_bytes() != git(root, "show", f"{now}:{n}")]
    lines = [f"Updated, {len(names)} files."]
    lines += [f"New or renewed: {Path(name).name}" for name in new if name not in kept]
    for name in kept:
        number = Path(name).name.partition("_")[0]
        lines.append(
            f"Kept as you have it: {Path(name).name}, though there is a new one. To get that: "
            f"make pristine LESSON={number} (yours goes into kept/)"
        )
    return "\n".join([*lines, "Now `make lab`, which also renews the packages if they changed."])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.update", description="Get what is new and keep every answer."
    )
    words = "put this lesson back as published"
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
