"""What the benchmarks share: timing in turn, ids drawn from Zipf's law, tables of text, records."""

import datetime
import json
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
MEASUREMENTS = ROOT / "data" / "measurements"
Block = tuple[str, Sequence[Sequence[str]]]  # what to know before reading a table, and its cells


# --- Timing -----------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call; a GPU is waited for before and after."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def in_turn(
    functions: Mapping[str, Callable[[], object]],
    device: torch.device,
    budget: float = 0.3,
    most: int = 30,
) -> dict[str, dict[str, float]]:
    """Shortest and median seconds of each function; they take turns.

    At each turn a function is called twice, and the second call is timed: it finds the processor's
    caches as the function itself leaves them, not as the others do. There are `most` rounds; a
    function that has had three, and `budget` seconds, sits out the rest.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for n in range(most):
        for name, function in functions.items():
            if n < 3 or sum(times[name]) < budget:
                function()
                times[name].append(seconds(function, device))
    return {
        name: {"seconds": short(min(all_)), "median": short(statistics.median(all_))}
        for name, all_ in times.items()
    }


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def short(number: float) -> float:
    """Four digits: more would be noise, and a noisy diff."""
    return float(f"{number:.4g}")


# --- Ids --------------------------------------------------------------------------------------


def zipf(V: int, shape: tuple[int, ...], s: float, seed: int) -> Tensor:
    """Ids of V rows, int64, of the given shape: the k-th most frequent row has weight k ** -s.

    Drawn by the inverse of the distribution function. Which row is how frequent is random, as in a
    table whose rows are in no order of frequency.
    """
    generator = torch.Generator().manual_seed(seed)
    upto = torch.arange(1, V + 1, dtype=torch.float64).pow_(-s).cumsum(0)
    row_of_rank = torch.randperm(V, generator=generator)
    ids = torch.empty(shape, dtype=torch.int64)
    for part in ids:  # a batch at a time, so that the draws need little memory
        draws = torch.rand(part.shape, generator=generator, dtype=torch.float64) * upto[-1]
        part.copy_(row_of_rank[torch.searchsorted(upto, draws).clamp_(max=V - 1)])
    return ids


# --- Text and JSON ----------------------------------------------------------------------------


def text(blocks: Sequence[Block]) -> str:
    """Tables whose columns are aligned, to the right where they hold numbers."""
    lines = []
    for heading, cells in blocks:
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        numbers = [any(re.match(r"[\d.,]+( |$)", c) for c in column[1:]) for column in
                   zip(*cells, strict=True)]  # fmt: skip
        lines += ["", heading, ""]
        for row in cells:
            parts = [c.rjust(w) if n else c.ljust(w)
                     for c, w, n in zip(row, widths, numbers, strict=True)]  # fmt: skip
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines[1:])


def target(what: str, measured: float, wanted: float, at_least: bool = False) -> dict[str, Any]:
    met = measured >= wanted if at_least else measured <= wanted
    return {"what": what, "wanted": ("at least " if at_least else "at most ") + f"{wanted:g}",
            "measured": short(measured), "met": met}  # fmt: skip


def targets(found: Sequence[Mapping[str, Any]]) -> Block:
    """The block that says which targets are met."""
    cells = [("target", "wanted", "measured", "")]
    cells += [(t["what"], t["wanted"], f"{t['measured']:.2f}", "met" if t["met"] else "MISSED")
              for t in found]  # fmt: skip
    return "The course's targets:", cells


def store(record: Mapping[str, Any], device: torch.device, into: Path, suffix: str = "") -> Path:
    """Write a benchmark's record as JSON, with what it was measured on, and say where.

    Named after the benchmark and the device, so that each device has one.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    head = {"benchmark": record["benchmark"], "device": name, **circumstances()}
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return write({**head, **record}, into / f"{record['benchmark']}-{slug}{suffix}.json")


def circumstances() -> dict[str, Any]:
    """The processor, PyTorch's threads on it, the versions and the day."""
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "numpy": numpy.__version__},
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def write(record: Mapping[str, Any], path: Path) -> Path:
    """Write a record as JSON into `path`, whose folder is made if need be; return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_json(record), encoding="utf-8")
    return path


def _json(record: Mapping[str, Any]) -> str:
    """JSON with one line for each measured row, so that a diff shows which row changed."""
    fields = []
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows = ",\n".join("    " + json.dumps(row) for row in value)
            fields.append(f"  {json.dumps(name)}: [\n{rows}\n  ]")
        else:
            fields.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def cpu_name() -> str:
    """The processor's model name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text("utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()
