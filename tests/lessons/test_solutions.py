"""Every lesson runs with its solutions in place, and every check in it says right.

What runs is the instructor's notebook of the workshop kit, so that one run holds both. It runs in
another folder than the lesson's: what a lesson computes does not depend on where it is run.
"""

from pathlib import Path

import pytest

from helpers import checks
from tools.kit import workshop
from tools.lessons import execute, exercises, read, taught

LESSONS = taught()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_solutions_are_right(path: Path, tmp_path: Path) -> None:
    lesson, page = read(path), workshop.notes(path.stem)
    done = execute(workshop.instructor(lesson, page), tmp_path, path.name, **{checks.RAISE: "1"})
    cells = {cell.id: cell for cell in done.cells}
    for exercise in exercises(lesson):
        stub = cells[lesson.cells[exercise.stub].id]
        assert stub.source.startswith(exercise.code)
        assert stub.outputs[0].text.startswith("Right"), f"{stub.id}: {stub.outputs[0].text}"
