"""tools.lessons on small notebooks: one stored form, kept measurements, solutions in place."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from tools.lessons import (
    LessonError,
    digests,
    execute,
    exercises,
    main,
    normalise,
    read,
    refresh,
    stub_check,
    text,
    with_solutions,
)

SOLUTION = "<details><summary>Solution</summary>\n\n```python\nanswer = 2\n```\n\n</details>"
RANDOM = "import os\nprint(os.urandom(8).hex())"
WIDGET = "application/vnd.jupyter.widget-view+json"


def code(source: str, *tags: str, **fields: object) -> NotebookNode:
    return v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, **fields)


def prose(source: str, *tags: str) -> NotebookNode:
    return v4.new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def book(*cells: NotebookNode) -> NotebookNode:
    """A notebook of these cells, unlike nbformat's own not mended on the way."""
    return nbformat.from_dict(
        {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    )


def write(path: Path, *cells: NotebookNode) -> Path:
    path.write_text(json.dumps(book(*cells)), encoding="utf8")
    return path


def printed(path: Path, cell: int) -> str:
    return "".join(out.get("text", "") for out in read(path).cells[cell].outputs)


def test_ids_become_slugs_and_a_persons_own_stay() -> None:
    cells = [
        prose("# 01 · Lookup tables", "solution"),
        code("import torch"),
        code("import torch", id="claim-C09"),
        code("import torch", id="0badcafe"),
        code("import torch", id="6f1d2c3b-1111-4222-8333-0123456789ab"),
        code("print(1)", id="twice"),
        code("print(2)", id="twice"),
        code("", id="_"),
        prose("a " + "word " * 30),
        prose("w" * 90),
    ]
    del cells[0]["id"]
    names = [cell.id for cell in normalise(book(*cells)).cells]
    assert names[:5] == [
        "01-lookup-tables",
        "import-torch",
        "claim-C09",
        "import-torch-2",
        "import-torch-3",
    ]
    assert names[5:8] == ["twice", "print-2", "cell"]
    assert names[8].startswith("a-word-word") and names[9] == "cell-2"
    assert max(map(len, names)) <= 40


def test_normalise_reduces_and_is_idempotent() -> None:
    png = {"image/png": {"alt": "a row", "width": 300}, "isolated": True}
    outputs = [
        v4.new_output("stream", name="stdout", text="a\n"),
        v4.new_output("stream", name="stdout", text="b\n"),
        v4.new_output("display_data", data={WIDGET: {"model_id": "m"}, "text/plain": "w"}),
        v4.new_output("display_data", data={"image/png": "aaaa"}, metadata=png),
        v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7),
    ]
    busy = code("print('a')  \nprint('b')\n\n", execution_count=2, outputs=outputs)
    busy.metadata.update(execution={"x": 1}, collapsed=True, scrolled=True, tags=[], digest="old")
    nb = book(busy, code("x", "claim-C01"))
    nb.metadata.update(widgets={"state": {}}, kernelspec={"name": "mine", "display_name": "Mine"})
    before = json.dumps(nb)
    once = normalise(nb)
    assert json.dumps(nb) == before, "normalise changes a copy"
    assert text(normalise(once)) == text(once)
    assert once.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    first, second = once.cells
    assert first.source == "print('a')\nprint('b')" and first.metadata == {}
    assert second.metadata == {"tags": ["claim-C01"]}
    assert [out.output_type for out in first.outputs] == [
        "stream",
        "display_data",
        "execute_result",
    ]
    assert first.outputs[0].text == "a\nb\n"
    assert first.outputs[1].metadata == {"image/png": {"alt": "a row", "width": 300}}
    assert first.outputs[2].execution_count == 2
    assert text(once).endswith("}\n") and text(once).splitlines()[1].startswith(' "')


def test_second_run_leaves_the_file_byte_identical(tmp_path: Path) -> None:
    path = write(
        tmp_path / "01.ipynb",
        code("x = 1\nx"),
        code(RANDOM, "measured"),
        code(RANDOM, "nbval-ignore-output"),
        code("print(x)"),
    )
    assert refresh(path).endswith("4 cells, changed")
    first = path.read_bytes()
    assert refresh(path).endswith("4 cells, unchanged")
    assert path.read_bytes() == first
    cells = read(path).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4]
    assert cells[0].outputs[0].execution_count == 1 and printed(path, 3) == "1\n"


def test_when_measured_output_is_renewed(tmp_path: Path) -> None:
    path = write(tmp_path / "01.ipynb", code("x = 1"), code(RANDOM, "measured"), code("x"))
    refresh(path)
    first = printed(path, 1)

    def edit(cell: int, source: str) -> None:
        nb = read(path)
        nb.cells[cell].source = source
        path.write_text(text(nb), encoding="utf8")
        refresh(path)

    edit(2, "x + 1")
    assert printed(path, 1) == first, "code below does not matter"
    edit(0, "x = 2")
    second = printed(path, 1)
    assert second != first
    refresh(path, fresh=True)
    third = printed(path, 1)
    assert third != second
    nb = read(path)
    nb.cells[1].outputs = []
    path.write_text(text(nb), encoding="utf8")
    refresh(path)
    assert printed(path, 1) not in ("", third), "nothing was stored, so it is measured"


def test_digest_covers_code_up_to_the_cell_and_no_prose() -> None:
    nb = book(prose("a"), code("x = 1"), code("y", "measured"), code("z"))
    before = digests(nb)
    nb.cells[0].source, nb.cells[3].source = "b", "zz"
    assert digests(nb) == before and list(before) == [2]
    nb.cells[1].source = "x = 2"
    assert digests(nb) != before


def test_failing_cell_leaves_its_file_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write(tmp_path / "01_bad.ipynb", code("x = 1"), code("x / 0\n", id="divide"))
    good = write(tmp_path / "02_good.ipynb", code("print(1)"))
    before = bad.read_bytes()
    assert main([str(tmp_path / "00_none.ipynb"), str(bad), str(good)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith("failed: ") and "00_none.ipynb" in said.err
    wanted = "failed: 01_bad.ipynb: cell 1 (divide): ZeroDivisionError: division by zero"
    assert said.err.splitlines()[1:] == [wanted]
    assert said.out.startswith("02_good.ipynb: ") and said.out.endswith("1 cells, changed\n")
    assert bad.read_bytes() == before and printed(good, 0) == "1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01_bad.ipynb", "02_good.ipynb"]
    assert main([str(good)]) == 0


def test_what_is_no_notebook_is_named(tmp_path: Path) -> None:
    for content in ("no json", "{}", "[]"):
        (tmp_path / "x.ipynb").write_text(content, encoding="utf8")
        with pytest.raises(ValueError, match=r"x\.ipynb is not a notebook"):
            read(tmp_path / "x.ipynb")


def test_edit_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "01.ipynb", code("open('01.ipynb', 'a').write(' ')"))
    before = path.read_bytes()
    with pytest.raises(LessonError, match="edited while it ran"):
        refresh(path)
    assert path.read_bytes() == before + b" "


def test_kernel_is_this_interpreter_in_the_notebooks_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    other = {"argv": ["/nowhere/python"], "display_name": "other", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(other), encoding="utf8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = "import os, sys\nprint(sys.executable, os.getcwd(), os.environ['CI'], os.environ['A'])"
    done = execute(book(code(source)), tmp_path, "x", A="b")
    wanted = [sys.executable, os.path.realpath(tmp_path), "1", "b"]
    assert done.cells[0].outputs[0].text.split() == wanted


def test_solutions_take_the_stubs_place_above_its_check() -> None:
    stub = code("import this\nanswer = ...\ncheck.same_rows(answer)", "exercise")
    nb = book(prose("card"), stub, code("print(1)"), prose(SOLUTION, "solution"))
    assert exercises(nb) == [(1, "answer = 2")]
    assert with_solutions(nb).cells[1].source == "answer = 2\ncheck.same_rows(answer)"
    assert nb.cells[1].source == stub.source and stub_check(stub) == ("check", "same_rows")


STUB = code("check.a(x)", "exercise")
TWO = SOLUTION.replace("\n\n</", "\n\n```python\nx\n```\n\n</")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([STUB], "no markdown cell tagged solution"),
        ([STUB, STUB, prose(SOLUTION, "solution")], "no markdown cell tagged solution"),
        ([STUB, prose(SOLUTION, "solution"), prose(SOLUTION, "solution")], "1 exercises, 2 sol"),
        ([STUB, code("answer = 2", "solution")], "no markdown cell tagged solution"),
        ([STUB, prose(TWO, "solution")], "2 ```python blocks"),
        ([STUB, prose("```\nanswer = 2\n```", "solution")], "0 ```python blocks"),
        ([STUB, prose("```python\nanswer = 2\n```", "solution")], "needs <details>"),
        ([code("x = ...", "exercise"), prose(SOLUTION, "solution")], "last line 'x = ...'"),
    ],
)
def test_what_is_wrong_with_an_exercise_is_said(cells: list[NotebookNode], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_solutions(nbformat.from_dict(book(*cells)))
