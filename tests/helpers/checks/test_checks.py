"""Every exercise: right when solved, not attempted as it stands, wrong with a fitting hint."""

import importlib
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import checks
from tools import lessons

ANSWERS = [
    importlib.import_module(f"wrong_answers.{path.stem}")
    for path in sorted(Path(__file__).parent.glob("wrong_answers/*.py"))
]
# By "module.exercise": an answer, and a part of the hint it should get.
WRONG = {name: answers for module in ANSWERS for name, answers in module.WRONG.items()}
# By "module.exercise": right answers of unusual make.
RIGHT = {name: good for module in ANSWERS for name, good in getattr(module, "RIGHT", {}).items()}


def check_named(name: str) -> Callable[[object], checks.Result]:
    module, exercise = name.split(".")
    return getattr(importlib.import_module(f"helpers.checks.{module}"), exercise)


# What a check draws is fresh each time; here it is the same in every run, so that no run fails by
# its luck. To look for unlucky draws, write `range(1000)`.
SEEDS = range(1)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that lets the checks that follow draw from this seed on."""
    return lambda seed: monkeypatch.setattr(checks, "fresh_seed", lambda: seed)


def exercises() -> list[tuple[str, str, str]]:
    """(name, stub's code, solution's code) of every exercise of every notebook."""
    found = []
    for path in lessons.taught():
        nb = lessons.read(path)
        source = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "code")
        module = re.search(r"from helpers\.checks import (\w+) as check", source)
        for exercise in lessons.exercises(nb):
            stub = nb.cells[exercise.stub].source
            check = re.search(r"check\.(\w+)\(\w+\)$", stub)
            found.append((f"{module[1]}.{check[1]}", stub, exercise.code))
    return found


EXERCISES = exercises()


def judged(name: str, code: str, call: str) -> checks.Result:
    """Run an answer's code and the last line of its stub, as a notebook does."""
    module, _ = name.split(".")
    names = {"np": np, "torch": torch, "F": F, "nn": nn}
    names["check"] = importlib.import_module(f"helpers.checks.{module}")
    exec(code, names)
    return eval(call, names)


def test_every_exercise_has_wrong_answers() -> None:
    assert {name for name, _, _ in EXERCISES} == set(WRONG)
    assert all(len(answers) >= 2 for answers in WRONG.values())


@pytest.mark.parametrize(("name", "stub", "solution"), EXERCISES, ids=[e[0] for e in EXERCISES])
def test_stub_and_solution(
    name: str, stub: str, solution: str, draw: Callable[[int], None], capsys
) -> None:
    *body, call = stub.splitlines()
    assert judged(name, "\n".join(body), call).state == checks.NOT_ATTEMPTED
    assert capsys.readouterr().out.startswith("Not attempted yet.")
    for seed in SEEDS:
        draw(seed)
        result = judged(name, solution, call)
        assert result.state == checks.RIGHT, result.hint
    assert capsys.readouterr().out.startswith("Right.")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_get_the_hint_that_fits(
    name: str, draw: Callable[[int], None], capsys
) -> None:
    for answer, part in WRONG[name]:
        for seed in SEEDS:
            draw(seed)
            result = check_named(name)(answer)
            assert result.state == checks.WRONG, (answer, result)
            assert re.search(part, result.hint), (part, result.hint)
            assert capsys.readouterr().out.startswith("Not right yet.")


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_of_unusual_make_are_accepted(
    name: str, draw: Callable[[int], None], capsys
) -> None:
    for answer in RIGHT[name]:
        for seed in SEEDS:
            draw(seed)
            result = check_named(name)(answer)
            assert result.state == checks.RIGHT, (answer, result.hint)


class Hostile:
    """An object that resists every question."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __hash__ = None


ODD = [
    None,
    "forty",
    True,
    float("nan"),
    [1, 2],
    {},
    {"SGD": {Hostile}},
    torch.ones(3),
    torch.ones(2, 3, dtype=torch.complex64),
    np.ones(3),
    nn.Linear,
    nn.Embedding(3, 2),
    Hostile(),
    lambda: 1,
    lambda *inputs: 1 / 0,
    lambda *inputs: exit(),
    lambda *inputs: "text",
    lambda *inputs: np.ones(3),
    lambda *inputs: torch.ones(1, dtype=torch.int8),
    lambda *inputs: torch.ones(2, 2).to_sparse(),
    lambda *inputs: torch.empty(3, device="meta"),
    lambda *inputs: Hostile(),
    lambda *inputs: [i.zero_() for i in inputs if isinstance(i, torch.Tensor)],
]


@pytest.mark.parametrize("name", WRONG)
def test_no_answer_makes_a_check_raise(name: str, capsys) -> None:
    for answer in ODD:
        state = torch.get_rng_state()
        result = check_named(name)(answer)
        assert result.state == checks.WRONG
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert torch.equal(torch.get_rng_state(), state)


def test_a_check_raises_when_the_environment_asks(monkeypatch) -> None:
    monkeypatch.setenv(checks.RAISE, "1")
    with pytest.raises(AssertionError, match="numbers_in_the_table: wrong"):
        check_named("start_here.numbers_in_the_table")(13)
    assert check_named("start_here.numbers_in_the_table")(30).state == checks.RIGHT


def test_the_stop_button_ends_a_check_quietly(capsys) -> None:
    def endless(V, p):
        signal.raise_signal(signal.SIGINT)  # what the stop button sends
        while True:
            pass

    # Jupyter's kernels do so too. A program that a shell starts with & ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = check_named("lookup_tables.smallest_dimension")(endless)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.state == checks.WRONG and "stopped" in result.hint
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_check_leaves_tensors_as_they_were() -> None:
    """A class that was once patched at __getitem__ fails at this; see NoIndexing."""
    check_named("lookup_tables.look_up")(lambda ids, weight: weight[ids])
    assert torch.tensor([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]


def test_nothing_else_shows_under_the_cell(capsys) -> None:
    def noisy(V, p):
        print("noise")
        return V * p

    result = check_named("lookup_tables.smallest_dimension")(noisy)
    assert "noise" not in capsys.readouterr().out
    result._ipython_display_()
    assert capsys.readouterr().out == ""
