"""A recommender in training, as in DLRM, with its table in one place or another.

A batch of B samples has 26 ids each, drawn from Zipf's law over the table's rows. Their rows, side
by side, go through a dense model to a logit, whose loss is binary cross-entropy with random labels.
SGD trains all of it. On a GPU the dense model runs under bfloat16 autocast.

The variants train the same table, one after the other, in a few rounds, and meet the same batches
in each; what counts is the shortest time of each step. On a GPU, where one step runs into the next,
it is the shortest time of all that are timed. A stream's bytes are compared with the formulas of
`helpers.offload`.
"""

import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from helpers.offload import CachedEmbedding, Meter, OffloadedEmbedding, Prefetcher, to_device

from .common import Block, in_turn, short, synchronize, target, targets, zipf

CPU = torch.device("cpu")
SIZE = torch.float32.itemsize
ID = torch.int64.itemsize
Batch = tuple[Tensor, Tensor]  # ids (B, fields) and labels (B,), both on the host


@dataclasses.dataclass(frozen=True)
class Parameters:
    rows: int
    dim: int
    batch: int
    layers: tuple[int, ...]  # of the dense model, before its one output
    warm: int = 100  # steps in which a cache fills and learns
    timed: int = 20
    rounds: int = 3
    fields: int = 26
    zipf: float = 1.05
    lr: float = 0.1
    bfloat16: bool = True  # autocast, which a GPU alone has
    seed: int = 0
    memory_fraction: float | None = None  # of the GPU's memory, which PyTorch may use

    @property
    def ids(self) -> int:
        return self.batch * self.fields

    @property
    def row_bytes(self) -> int:
        return self.dim * SIZE


ON_CPU = Parameters(1_000_000, 32, 256, (128, 64), rounds=5)
ON_GPU = Parameters(20_000_000, 128, 16_384, (1024, 512, 256), rounds=2)
TINY = Parameters(40_000, 4, 8, (16, 8), warm=6, timed=6, rounds=1, lr=1.0)


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    prefetch: bool = False
    share: float = 0  # of the rows, which the cache holds


VARIANTS = (
    Variant("resident"),
    Variant("naive"),
    Variant("distinct"),
    Variant("prefetch", prefetch=True),
    Variant("cache 1%", share=0.01),
    Variant("cache 5%", share=0.05),
    Variant("cache 1% + prefetch", prefetch=True, share=0.01),
    Variant("cache 5% + prefetch", prefetch=True, share=0.05),
    Variant("cache 10% + prefetch", prefetch=True, share=0.1),
)


def start(p: Parameters) -> Tensor:
    """The table, (V, D), before training."""
    generator = torch.Generator().manual_seed(p.seed)
    return torch.empty(p.rows, p.dim).uniform_(-0.1, 0.1, generator=generator)


def batches(p: Parameters, device: torch.device) -> list[Batch]:
    """All batches of a run; the last keeps a prefetcher busy while the last timed step runs."""
    n = p.warm + p.timed + 1
    ids = zipf(p.rows, (n, p.batch, p.fields), p.zipf, p.seed)
    generator = torch.Generator().manual_seed(p.seed)
    labels = torch.randint(2, (n, p.batch), generator=generator).float()
    if device.type == "cuda":
        ids, labels = ids.pin_memory(), labels.pin_memory()
    return list(zip(ids, labels, strict=True))


class Model:
    """The dense model and its step, the same to begin with in every variant."""

    def __init__(self, p: Parameters, device: torch.device) -> None:
        sizes = (p.fields * p.dim, *p.layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            hidden = [layer for ins, outs in zip(sizes, sizes[1:], strict=False)
                      for layer in (nn.Linear(ins, outs), nn.ReLU())]  # fmt: skip
            layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))
        self.layers, self.device = layers.to(device), device
        self.bfloat16 = p.bfloat16 and device.type == "cuda"
        self.optimizer = torch.optim.SGD(self.layers.parameters(), lr=p.lr)

    def step(self, rows: Tensor, labels: Tensor) -> None:
        """Train on rows (B, fields, D), on the device: their gradient goes on from here."""
        self.optimizer.zero_grad()
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.layers(rows.flatten(1)).squeeze(1)
        nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        self.optimizer.step()


def table_for(
    variant: Variant, p: Parameters, host: Tensor, device: torch.device, meter: Meter
) -> nn.Embedding:
    """The table of a variant. All but the one on a GPU share their rows with `host`."""
    if variant.name in ("resident", "naive"):
        where = device if variant.name == "resident" else CPU
        return nn.Embedding.from_pretrained(host.to(where), freeze=False, sparse=True)
    if variant.share:
        rows = int(p.rows * variant.share)
        return CachedEmbedding.from_pretrained(
            host, freeze=False, device=device, meter=meter, rows=rows, update="sgd", lr=p.lr
        )
    return OffloadedEmbedding.from_pretrained(host, freeze=False, device=device, meter=meter)


def train(
    variant: Variant, p: Parameters, host: Tensor, stream: Sequence[Batch], device: torch.device
) -> tuple[dict[str, Any], Tensor]:
    """What was measured of a variant on a stream of batches, and the table it ends with, (V, D).

    Raises:
        torch.OutOfMemoryError: the table does not fit on the device.
        RuntimeError: the rows of a batch do not fit in the cache, or the bytes that crossed are
            not those of the formula.
    """
    meter, model = Meter(), Model(p, device)
    table = table_for(variant, p, host, device, meter)
    cached = isinstance(table, CachedEmbedding)
    optimizer = None if cached else torch.optim.SGD([table.weight], lr=p.lr, foreach=False)
    warm = len(stream) - p.timed - 1
    marks = []  # at the first timed batch, and after the last: look-ups, hits, bytes

    def coming() -> Iterator[Batch]:
        # When a batch is asked for, those before it are fetched, and no thread is at work.
        for n, batch in enumerate(stream):
            if cached and n in (warm, warm + p.timed):
                marks.append((table.lookups, table.hits, meter.to_device, meter.to_host))
            yield batch

    def step(ids: Tensor, labels: Tensor) -> None:
        if optimizer is not None:
            optimizer.zero_grad()
        if variant.name == "resident":
            ids = to_device(ids, device, meter) if device != CPU else ids
        rows = table(ids)
        if variant.name == "naive":  # every id's row, and on the way back every id's gradient
            rows = rows.to(device)
        model.step(rows, labels)
        if optimizer is None:
            table.step()
        else:
            optimizer.step()

    source = coming()
    if variant.prefetch:
        source = Prefetcher(source, table, ids=lambda batch: batch[0], optimizer=optimizer)
    block = 1 if device == CPU else p.timed
    ends: list[float] = []
    for n, batch in enumerate(source):
        if warm <= n <= warm + p.timed and (n - warm) % block == 0:
            synchronize(device)
            ends.append(time.perf_counter())
        step(*batch)
    blocks = [end - begin for begin, end in pairwise(ends)]
    row = {"variant": variant.name, "fits": True, "blocks": blocks}
    if cached:
        _check_cache(table, variant, p, stream, device)
        (asked, hits, out, back), (asked_after, hits_after, out_after, back_after) = marks
        row["hit_rate"] = short((hits_after - hits) / (asked_after - asked))
        row["to_device"] = round((out_after - out) / p.timed)
        row["to_host"] = round((back_after - back) / p.timed)
    else:
        whole = formula(variant, p, stream, device)
        counted = meter.to_device, meter.to_host
        if variant.name != "naive" and counted != whole:
            raise RuntimeError(f"{variant.name}: the meter counted {counted} bytes to the device "
                               f"and back; the formula says {whole}.")  # fmt: skip
        timed = formula(variant, p, stream[warm : warm + p.timed], device)
        row["to_device"], row["to_host"] = (round(n / p.timed) for n in timed)
    return row, table.weight.detach()


# --- Bytes ------------------------------------------------------------------------------------


def formula(
    variant: Variant, p: Parameters, stream: Sequence[Batch], device: torch.device
) -> tuple[int, int]:
    """Bytes to the device and to the host for these batches; not for a cache.

    As in the docstrings of `helpers.offload`. On a CPU ids need not cross; rows are counted.
    """
    of_ids = len(stream) * p.ids * ID if device != CPU else 0
    if variant.name == "resident":
        return of_ids, 0
    if variant.name == "naive":
        of_rows = len(stream) * p.ids * p.row_bytes
        return of_rows, of_rows
    U = sum(len(ids.unique()) for ids, _ in stream)
    told = 2 * U if variant.prefetch else 0
    return of_ids + U * p.row_bytes + told, U * ID + U * p.row_bytes


def _check_cache(
    table: CachedEmbedding,
    variant: Variant,
    p: Parameters,
    stream: Sequence[Batch],
    device: torch.device,
) -> None:
    """The formula over the cache's whole life, after which it is closed.

    How many rows were missing, M, follows from the bytes to the device; how many lie in the cache
    at its end, R, from those of the last write-back. So M - R were evicted, and the bytes to the
    host must be those of M ids and M - R rows with their ids.
    """
    out, back = table.meter.to_device, table.meter.to_host
    table.close()
    of_ids = len(stream) * p.ids * ID if device != CPU else 0
    record = ID + p.row_bytes
    missing, odd = divmod(out - of_ids, p.row_bytes)
    left, odd_too = divmod(table.meter.to_host - back, record)
    wanted = missing * ID + (missing - left) * record
    if odd or odd_too or back != wanted or left > table.cache_rows:
        raise RuntimeError(
            f"{variant.name}: {missing:,} rows missing and {left:,} left at the end make "
            f"{wanted:,} bytes to the host by the formula; the meter counted {back:,}."
        )


# --- The comparison ---------------------------------------------------------------------------


def measured(p: Parameters, device: torch.device) -> dict[str, Any]:
    """The record: every variant, what its step is made of, and the targets on a GPU."""
    if p.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(p.memory_fraction)
    try:
        host, stream = start(p), batches(p, device)
        tries = [[_attempt(variant, p, host, stream, device) for variant in VARIANTS]
                 for _ in range(p.rounds)]  # fmt: skip
        rows = [_shortest(of_one, p) for of_one in zip(*tries, strict=True)]
        _ratios(rows, p)
        for variant, row in zip(VARIANTS, rows, strict=True):
            if row["fits"]:
                row.update(_parts(variant, row, p, host, stream[-1], device))
                _free(device)
    finally:
        if p.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(1.0)
    record = {
        "benchmark": "dlrm",
        "on_gpu": device.type == "cuda",
        "parameters": dataclasses.asdict(p),
        "table_bytes": p.rows * p.row_bytes,
        "rows": rows,
        "targets": _targets(rows, device),
    }
    if device.type == "cuda":
        record["device_memory"] = torch.cuda.get_device_properties(device).total_memory
    return record


def _attempt(
    variant: Variant, p: Parameters, host: Tensor, stream: list[Batch], device: torch.device
) -> dict[str, Any]:
    """What `train` measured, or that the variant does not fit, and why."""
    if not variant.share:  # nothing to learn: ten steps warm up as well as a hundred
        stream = stream[max(0, p.warm - 10) :]
    _free(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        row, _ = train(variant, p, host, stream, device)
    except torch.OutOfMemoryError:
        row = {"variant": variant.name, "fits": False, "why": "out of memory"}
    except RuntimeError as error:
        if "cannot hold" not in str(error):
            raise
        row = {"variant": variant.name, "fits": False, "why": "its cache is too small"}
    if device.type == "cuda":
        row["device_bytes"] = torch.cuda.max_memory_allocated(device)
    return row


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _shortest(tries: Sequence[dict[str, Any]], p: Parameters) -> dict[str, Any]:
    """Seconds a step: each block's shortest time over the rounds; and each round's own seconds."""
    if not all(row["fits"] for row in tries):
        return next(row for row in tries if not row["fits"])
    rounds = [row.pop("blocks") for row in tries]
    least = sum(map(min, zip(*rounds, strict=True)))
    each = [short(sum(blocks) / p.timed) for blocks in rounds]
    return {**tries[0], "seconds": short(least / p.timed), "rounds": each}


def _ratios(rows: list[dict[str, Any]], p: Parameters) -> None:
    took = {row["variant"]: row["seconds"] for row in rows if row["fits"]}
    for row in rows:
        if row["fits"]:
            row["samples_per_second"] = short(p.batch / row["seconds"])
            for name in ("resident", "naive"):
                there = name in took
                row[f"to_{name}"] = short(took[name] / row["seconds"]) if there else None


def _parts(
    variant: Variant,
    row: dict[str, Any],
    p: Parameters,
    host: Tensor,
    batch: Batch,
    device: torch.device,
) -> dict[str, Any]:
    """Seconds of the parts of a step, each alone, and which takes longest.

    "rest" is what they leave of the step: work on the device, Python, waiting. With a Prefetcher
    the parts overlap, so there may be none. On a CPU nothing is copied.
    """
    ids, labels = batch
    inputs = torch.zeros(p.batch, p.fields, p.dim, device=device, requires_grad=True)
    model = Model(p, device)
    functions: dict[str, Any] = {"dense model": lambda: model.step(inputs, labels)}
    if variant.name not in ("resident", "naive"):
        functions["unique"] = lambda: ids.to(device, non_blocking=True).unique(return_inverse=True)
    if variant.name != "resident":
        functions |= _crossings(variant, row, p, host, ids, device)
    times = in_turn(functions, device, most=10)
    parts = {name: t["seconds"] for name, t in times.items()}
    parts["rest"] = short(max(0.0, row["seconds"] - sum(parts.values())))
    return {"parts": parts, "bound": max(parts, key=parts.get)}


def _crossings(
    variant: Variant,
    row: dict[str, Any],
    p: Parameters,
    host: Tensor,
    ids: Tensor,
    device: torch.device,
) -> dict[str, Any]:
    """As many rows as cross in a step: gathered on the host, copied, and written there."""
    if variant.share:  # what is missing are the rare rows
        crossing = device != CPU
        missing = (row["to_device"] - crossing * p.ids * ID) // p.row_bytes
        evicted = (row["to_host"] - missing * ID) // (ID + p.row_bytes)
        fetched, written = (torch.randperm(p.rows)[:n].sort().values for n in (missing, evicted))
    else:
        fetched = written = ids.flatten() if variant.name == "naive" else ids.unique()
    pin = device.type == "cuda" and variant.name != "naive"
    rows = torch.empty(len(fetched), p.dim, pin_memory=pin)
    on_device = torch.zeros(len(written), p.dim, device=device)
    back = torch.empty(len(written), p.dim, pin_memory=pin)
    zeros = torch.zeros(len(written), p.dim)  # so that the table stays as it is
    update = torch.sparse_coo_tensor(
        written[None], zeros, host.shape, is_coalesced=variant.name != "naive",
        check_invariants=False)  # fmt: skip
    own = host.index_select(0, written) if variant.share else None

    def write() -> None:
        if own is None:
            host.add_(update, alpha=-p.lr)
        else:
            host.index_copy_(0, written, own)

    return {
        "gather": lambda: torch.index_select(host, 0, fetched, out=rows),
        "to device": lambda: rows.to(device, non_blocking=pin),
        "to host": lambda: back.copy_(on_device, non_blocking=pin) if device != CPU else None,
        "write": write,
    }


def _targets(rows: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    row = next(row for row in rows if row["variant"] == "cache 5% + prefetch")
    if device.type != "cuda" or not row["fits"]:
        return []
    wanted = [("resident", 0.8), ("naive", 5)]
    return [target(f"cache 5% + prefetch, throughput to {name}'s", row[f"to_{name}"], least, True)
            for name, least in wanted if row[f"to_{name}"] is not None]  # fmt: skip


# --- What is printed --------------------------------------------------------------------------


def report(record: dict[str, Any]) -> list[Block]:
    rows, p = record["rows"], record["parameters"]
    cells = [("variant", "samples/s", "to resident", "to naive", "ms/step", "kB to device",
              "kB to host", "hit rate")]  # fmt: skip
    names = ("dense model", "unique", "gather", "to device", "to host", "write", "rest")
    parts = [("variant", "ms/step", *names, "longest")]
    for row in rows:
        if not row["fits"]:
            cells.append((row["variant"], f"does not fit: {row['why']}", *[""] * 6))
            continue
        ratios = (f"{r:.2f}" if (r := row[f"to_{n}"]) is not None else "-"
                  for n in ("resident", "naive"))  # fmt: skip
        kb = (f"{row[way] / 1e3:,.0f}" for way in ("to_device", "to_host"))
        rate = f"{row['hit_rate']:.1%}" if "hit_rate" in row else "-"
        ms = f"{row['seconds'] * 1e3:.2f}"
        cells.append((row["variant"], f"{row['samples_per_second']:,.0f}", *ratios, ms, *kb, rate))
        of = row["parts"]
        parts.append((row["variant"], ms,
                      *(f"{of[n] * 1e3:.2f}" if n in of else "-" for n in names),
                      row["bound"]))  # fmt: skip
    where = "" if record["on_gpu"] else (
        "\nOn a CPU nothing is far away: this shows what each variant costs, not what it saves.")
    blocks = [
        (f"A recommender in training: {p['rows']:,} rows of {p['dim']}, batches of {p['batch']:,} "
         f"x {p['fields']} ids.\nHow many times the throughput of the resident table, and of the "
         "naive way; bytes are those of a step." + where, cells),
        ("What a step is made of, in milliseconds, each part measured alone. (A prefetcher lets "
         "them overlap.)", parts),
    ]  # fmt: skip
    return blocks + ([targets(record["targets"])] if record["targets"] else [])
