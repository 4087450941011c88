"""The experiments at a tiny size, by the lessons' own cells, and the records that lessons draw."""

import json
import platform
from pathlib import Path

import pytest

from tools.experiments import __main__ as experiments

HEAD = {"experiment", "cpu", "threads", "versions", "date", "notebook", "digest", "parameters",
        "rows"}  # fmt: skip


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_an_experiment_runs_and_its_record_has_the_stored_form(name: str, tmp_path: Path) -> None:
    experiments.main([name, "--tiny", "--into", str(tmp_path)])
    new, stored = read(tmp_path / f"{name}.json"), read(experiments.RECORDS / f"{name}.json")
    assert new.keys() == stored.keys() >= HEAD
    assert new["parameters"].keys() == stored["parameters"].keys()
    kinds = {frozenset(row) for row in stored["rows"]}
    assert new["rows"] and {frozenset(row) for row in new["rows"]} <= kinds
    for private in (experiments.common.ROOT, Path.home(), f'"{platform.node()}"'):
        assert str(private) not in json.dumps(stored)


def test_the_records_are_of_the_lessons_cells() -> None:
    assert list(experiments.stale()) == []


def test_a_changed_cell_makes_a_record_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(experiments.EXPERIMENTS))
    real = experiments.sources
    monkeypatch.setattr(experiments, "sources", lambda *of: [*real(*of)[:-1], "D = 3"])
    assert f"{name}.json" in next(experiments.stale())


def test_a_renamed_cell_is_named() -> None:
    module = next(iter(experiments.EXPERIMENTS.values()))
    with pytest.raises(ValueError, match="no cell 'nowhere'; was it renamed"):
        experiments.sources(module.NOTEBOOK, ["nowhere"])


def test_an_unknown_experiment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        experiments.main(["nothing"])
    assert "no experiment 'nothing'" in capsys.readouterr().err
