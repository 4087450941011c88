"""What is measured is what happened: bytes, operators, and more work takes more time."""

import os

import torch

from helpers import measure


def test_time_and_ratio_tell_much_from_little() -> None:
    little, much = torch.ones(10), torch.ones(2_000_000)
    assert 0 < measure.time(lambda: little * 2) < measure.time(lambda: much * 2)
    assert measure.ratio(lambda: much * 2, lambda: little * 2) > 3
    assert measure.ratio(lambda: little * 2, lambda: much * 2) < 1 / 3


def test_time_keeps_to_its_number_of_calls() -> None:
    calls = []
    measure.time(lambda: calls.append(torch.get_num_threads()), repeats=5)
    assert calls == [1] * 6  # one to warm up, and all on one thread


def test_the_number_of_threads_is_given_back(monkeypatch) -> None:
    before = torch.get_num_threads()

    def fails() -> None:
        raise KeyError("no")

    try:
        measure.time(fails)
    except KeyError:
        pass
    assert torch.get_num_threads() == before


def test_peak_bytes_counts_what_is_alive_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(1000)

    def all_at_once() -> list[torch.Tensor]:
        return [torch.empty(1000) for _ in range(3)]

    assert measure.peak_bytes(one_after_the_other) == 4000
    assert measure.peak_bytes(all_at_once) == 12_000
    assert measure.peak_bytes(lambda: None) == 0


def test_operators_in_order_without_their_prefix() -> None:
    table = torch.nn.Embedding(5, 2)
    names = measure.operators(lambda: table(torch.tensor([1, 2])))
    assert names.index("embedding") < names.index("index_select")
    assert "mm" not in names and "mm" in measure.operators(
        lambda: torch.ones(2, 2) @ table.weight.T
    )


def test_the_profiler_writes_nothing(capfd) -> None:
    measure.operators(lambda: torch.ones(3) + 1)
    os.write(2, b"still heard")
    assert capfd.readouterr().err == "still heard"
