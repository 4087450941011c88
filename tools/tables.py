"""Text made from other files, written where it is shown: `make tables`.

| where | what | from |
|:--|:--|:--|
| the card of a lesson | its minutes | the formula in tools/budget.py |
| README.md | the lessons, their minutes; four claims | the lessons, data/claims.csv |
| notebooks/more/README.md | the side lessons, their minutes | the side lessons |
| site/claims.md | all claims | data/claims.csv |
| notebooks/asked/README.md | the questions, by topic | the notebooks beside it |
| site/host_tables.md | what works with a table on the host | helpers/offload's docstring |
| site/instructor/ | the minutes of sections, the plans' clock | the lessons |
"""

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nbformat import NotebookNode

from helpers import claims
from tools import budget, teaching
from tools.lessons import FOLDER, asked_paths, paths, read, side_paths, store, tags

ROOT = FOLDER.parent
# The claims that surprise most; the README shows them.
SURPRISING = ("C19", "C05", "C11", "C29")


def between(text: str, name: str, fresh: str) -> str:
    """`text` with `fresh` between its two markers, <!-- name:begin --> and <!-- name:end -->."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    whole = re.compile(f"{begin}.*?{end}", re.S)
    if len(whole.findall(text)) != 1:
        raise ValueError(f"there should be one {begin} and one {end}, around the table")
    return whole.sub(lambda _: f"{begin}\n{fresh}\n{end}", text)


def opening(nb: NotebookNode) -> tuple[str, str]:
    """A lesson's title without its number, and the question below it."""
    title, question = nb.cells[0].source.split("\n\n")[:2]
    return title.partition(" · ")[2], " ".join(question.split())


def lessons_table(kind: str, listed: list[Path], folder: str = "") -> str:
    """Lessons as a Markdown table: number and title, question, minutes."""
    lines = [f"| {kind} | the question it answers | minutes |", "|:--|:--|--:|"]
    for path in listed:
        nb = read(path)
        title, question = opening(nb)
        name = f"[{path.name[:2]} {title}]({folder}{path.name})"
        lines.append(f"| {name} | {question} | {budget.card(nb)} |")
    return "\n".join(lines)


def topic(path: Path) -> str:
    """What a notebook of questions is about, from its title."""
    return read(path).cells[0].source.splitlines()[0].removeprefix("# Asked: ")


def questions() -> str:
    """The questions that people ask, each with a link to its answer: errors first, then topics."""
    errors, topics = [], []
    for path in asked_paths():
        cells = read(path).cells
        topics.append(f"\n## [{topic(path)}]({path.name})\n")
        for cell in cells:
            if found := re.match(r"## (.+)", cell.source):
                line = f"- [{found[1]}]({path.name}#{cell.id})"
                (errors if "error" in tags(cell) else topics).append(line)
    errors.sort(key=lambda line: re.sub(r"\W", "", line).lower())
    return "\n".join(["\n## Errors, by their words\n", *errors, *topics])


def surprising() -> str:
    """The four claims that surprise most, as a Markdown table."""
    by_id = {claim.id: claim for claim in claims.read()}
    lines = ["| they said | verdict | what the cell shows |", "|:--|:--|:--|"]
    for name in SURPRISING:
        claim = by_id[name]
        lines.append(f"| {claim.claim} | **{claim.verdict}** | {claim.evidence} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """README.md with its tables drawn anew."""
    text = between(text, "lessons", lessons_table("lesson", paths(), "notebooks/"))
    return between(text, "surprising", surprising())


def drawn() -> dict[Path, Callable[[str], str]]:
    """Each page that is drawn, at least in part, and the function that draws it anew.

    The order matters: the guide's plans are drawn from the instructor's pages.
    """
    every_claim = claims.table(claims.read())
    # Read rather than imported: that would bring PyTorch into every build of the site.
    offload = ast.parse((ROOT / "helpers" / "offload" / "__init__.py").read_text("utf-8"))
    rows = ast.get_docstring(offload).splitlines()
    host_tables = "\n".join(row for row in rows if row.startswith("|"))
    found: dict[Path, Callable[[str], str]] = {
        ROOT / "README.md": readme,
        ROOT / "site" / "claims.md": partial(between, name="claims", fresh=every_claim),
        FOLDER / "more" / "README.md": lambda text: between(
            text, "side", lessons_table("side lesson", side_paths())
        ),
        FOLDER / "asked" / "README.md": lambda text: between(text, "questions", questions()),
        ROOT / "site" / "host_tables.md": partial(between, name="host-tables", fresh=host_tables),
    }
    for path in paths():
        page = teaching.PAGES / f"{path.stem}.md"
        found[page] = partial(teaching.write_minutes, path=path)
    return {**found, teaching.PAGES / "guide.md": teaching.write_plans}


def main() -> None:
    changed = []
    for path in paths() + side_paths():
        nb = read(path)
        budget.write_card(nb)
        changed += [path] * store(nb, path)
    for path, draw in drawn().items():
        before = path.read_text("utf-8")
        after = draw(before)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    names = [path.relative_to(ROOT).as_posix() for path in changed]
    print(*names or ["Every table is as it should be."], sep="\n")


if __name__ == "__main__":
    main()
