"""Every lesson runs with its solutions in place, and every check in it says right."""

from pathlib import Path

import pytest

from helpers.lessons import execute, exercises, read, with_solutions

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_solutions_are_right(path: Path) -> None:
    nb = with_solutions(read(path))
    done = execute(nb, NOTEBOOKS, path.name, NN_EMBEDDING_CHECKS_RAISE="1")
    for exercise in exercises(read(path)):
        said = done.cells[exercise.stub].outputs[0].text
        assert said.startswith("Right"), f"{done.cells[exercise.stub].id}: {said}"
