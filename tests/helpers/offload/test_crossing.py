"""Bytes are counted, and nothing is read before it may be."""

from typing import Any

import pytest
import torch
from host_tables import rows_of, table_of

from helpers.offload import Meter, Prefetcher, crossing, prefetch

CPU = torch.device("cpu")


class FarTensor:
    """Stands for a tensor, and remembers how it was sent."""

    nbytes = 24

    def __init__(self, pinned: bool) -> None:
        self.pinned, self.sent = pinned, None

    def is_pinned(self) -> bool:
        return self.pinned

    def to(self, device: torch.device, non_blocking: bool) -> "FarTensor":
        self.sent = non_blocking
        return self


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "pageable"])
def test_the_host_goes_on_from_pinned_memory_only(pinned: bool) -> None:
    tensor, meter = FarTensor(pinned), Meter()
    crossing.to_device(tensor, torch.device("meta"), meter)
    assert tensor.sent is pinned and meter.to_device == 24


def test_a_meter_may_be_shared() -> None:
    meter = Meter()
    one, other = (table_of(rows_of(4, 2), meter=meter) for _ in range(2))
    one(torch.tensor([1]))
    other(torch.tensor([1, 2]))
    assert (meter.to_device, meter.to_host) == (3 * 8, 3 * 8)
    assert repr(meter) == "Meter(to_device=24, to_host=24)"
    meter.reset()
    assert meter.to_device == meter.to_host == 0


@pytest.mark.parametrize("tables", [1, 2])
def test_gathered_rows_lie_side_by_side(tables: int) -> None:
    parts, ids = [rows_of(9, 3, seed=k) for k in range(tables)], torch.tensor([0, 8, 3, 3])
    assert torch.equal(crossing.gathered(parts, ids, CPU), torch.cat([p[ids] for p in parts], 1))


class FakeStream:
    """A stream that tells what it was asked for, and in which order."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told, self.device = name, told, torch.device("meta")

    def __enter__(self) -> None:
        self.told.append(f"enter {self.name}")

    def __exit__(self, *_: Any) -> None:
        self.told.append(f"leave {self.name}")

    def wait_stream(self, other: "FakeStream") -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> "FakeStream":
        return self

    def synchronize(self) -> None:
        self.told.append(f"host waits for {self.name}")


@pytest.mark.parametrize("streams", [1, 2])
def test_a_fetch_waits_for_the_caller_s_stream(streams: int, monkeypatch) -> None:
    told: list[str] = []
    caller, side = FakeStream("caller", told), FakeStream("side", told)

    def another(device: torch.device) -> FakeStream:
        if streams == 1:
            raise RuntimeError("one stream only")
        return side

    monkeypatch.setattr(prefetch.torch, "Stream", another)
    with Prefetcher([], table_of(rows_of(4, 2)))._beside(caller):
        told.append("fetch")
    if streams == 1:  # what is given to one stream is done in order
        assert told == ["enter caller", "fetch", "leave caller", "host waits for caller"]
    else:
        assert told == ["side waits for caller", "enter side", "fetch", "leave side",
                        "host waits for side"]  # fmt: skip


def test_the_stream_is_the_one_in_which_a_batch_is_asked_for(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        prefetch.torch.accelerator, "current_stream", lambda device: asked.append(device)
    )
    table = table_of(rows_of(4, 2))
    table.device = torch.device("cuda", 0)  # which is not there, and not needed for this
    with pytest.raises((RuntimeError, AssertionError)):
        list(Prefetcher([torch.tensor([1])], table))
    assert asked == [torch.device("cuda", 0)]
