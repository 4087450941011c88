"""What crosses between the host and the device: two functions, and the meter that counts for them.

All that the tables of this package move goes through `to_device` and `to_host`. They count in the
same way where the device is the CPU itself, so the traffic of a program is known, to the byte, on a
machine without an accelerator. (The few bytes by which PyTorch learns the size of a result, after
`unique` say, are not counted.)
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

CPU = torch.device("cpu")


class Meter:
    """Bytes that have crossed: `to_device` from the host, `to_host` back to it."""

    def __init__(self, to_device: int = 0, to_host: int = 0) -> None:
        self.to_device, self.to_host = to_device, to_host
        self._lock = threading.Lock()  # a prefetcher and backward count in threads of their own

    def add(self, to_device: int = 0, to_host: int = 0) -> None:
        with self._lock:
            self.to_device += to_device
            self.to_host += to_host

    def reset(self) -> None:
        self.to_device = self.to_host = 0

    def __repr__(self) -> str:
        return f"Meter(to_device={self.to_device:,}, to_host={self.to_host:,})"

    def __reduce__(self) -> tuple:
        return Meter, (self.to_device, self.to_host)


def to_device(tensor: Tensor, device: torch.device, meter: Meter) -> Tensor:
    """`tensor`, which lies on the host, on `device`; its bytes are counted.

    A pinned tensor is copied while the host goes on; any other has been copied on return:
    else the host might change it before an accelerator has read it. Where the
    device is the CPU nothing is copied.
    """
    meter.add(to_device=tensor.nbytes)
    return tensor.to(device, non_blocking=tensor.is_pinned())


def to_host(tensor: Tensor, meter: Meter) -> Tensor:
    """`tensor`, which lies on the device, on the host; its bytes are counted.

    Returns when the copy is complete. Where the device is the CPU nothing is copied.
    """
    meter.add(to_host=tensor.nbytes)
    if tensor.device == CPU:
        return tensor
    home = torch.empty(tensor.shape, dtype=tensor.dtype, device=CPU, pin_memory=True)
    home.copy_(tensor, non_blocking=home.is_pinned())
    torch.accelerator.current_stream(tensor.device).record_event().synchronize()
    return home


def gathered(tables: Sequence[Tensor], ids: Tensor, device: torch.device) -> Tensor:
    """Rows `ids`, (M,), of one or more host tables (V, D), side by side: (M, tables · D).

    In pinned memory where an accelerator is to fetch them from there.
    """
    widths = [table.shape[1] for table in tables]
    size, dtype = (len(ids), sum(widths)), tables[0].dtype
    rows = torch.empty(size, dtype=dtype, device=CPU, pin_memory=device.type not in ("cpu", "meta"))
    parts = rows.split(widths, dim=1) if len(tables) > 1 else [rows]
    for table, part in zip(tables, parts, strict=True):
        torch.index_select(table, 0, ids, out=part)
    return rows
