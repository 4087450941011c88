"""The benchmarks at a tiny size: every variant trains the same table, and what is told is there.

Nothing here asks how long anything takes.
"""

import dataclasses
import json
import platform
import re
from pathlib import Path

import pytest
import torch
from benchmarks import common, dlrm, step
from benchmarks.__main__ import main

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> tuple[str, dict[str, dict]]:
    """What `make bench` prints at the tiny size, and the JSON that it writes, by benchmark."""
    into = tmp_path_factory.mktemp("measurements")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *parts, sep, end: lines.extend(parts))
        main(["--tiny", "--device", "cpu", "--into", str(into)])
    paths = sorted(into.iterdir())
    for path in paths:
        assert any(path.name in line for line in lines), f"nobody says where {path.name} is"
    return "\n".join(lines), {
        path.name.split("-")[0]: json.loads(path.read_text("utf-8")) for path in paths
    }


# --- The same table ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad", "SparseAdam"])
@pytest.mark.parametrize("drawn", ["uniform", "zipf"])
def test_every_way_to_step_ends_with_the_same_table(optimizer: str, drawn: str) -> None:
    case = step.Case(60, 3, 20, optimizer, drawn)
    start, ends = torch.rand(case.V, case.D), {}
    with step.unchecked():
        for variant in case.variants():
            table = step.trained(variant, case, start.clone())
            for ids in case.batches()[:5]:
                table.step(ids)
            ends[variant] = table.weight
    assert list(ends) == ["dense", "sparse", "one-hot", "offloaded"]
    assert (ends["dense"] - start).abs().max() > 0.02
    torch.testing.assert_close(ends["sparse"], ends["offloaded"])
    torch.testing.assert_close(ends["dense"], ends["one-hot"])
    if optimizer != "SparseAdam":  # where the dense ones have Adam, which is another optimizer
        torch.testing.assert_close(ends["dense"], ends["sparse"])


@pytest.mark.parametrize("device", DEVICES)
def test_every_variant_of_dlrm_trains_the_same_table(device: str) -> None:
    p, device = dataclasses.replace(dlrm.TINY, bfloat16=False), torch.device(device)
    stream, ends = dlrm.batches(p, device), {}
    for variant in dlrm.VARIANTS:
        row, table = dlrm.train(variant, p, dlrm.start(p), stream, device)
        assert row["fits"]
        ends[variant.name] = table.cpu()
    moved = (ends["resident"] - dlrm.start(p)).abs().max().item()
    assert moved > 5e-3 and len(ends) == 9
    for name, table in ends.items():
        torch.testing.assert_close(table, ends["resident"], atol=1e-6, rtol=0, msg=name)


# --- Bytes and ids ----------------------------------------------------------------------------


def test_bytes_are_those_of_the_distinct_rows(printed) -> None:
    stream = dlrm.batches(dlrm.TINY, torch.device("cpu"))[6:12]
    U = sum(len(set(ids.flatten().tolist())) for ids, _ in stream) / 6
    N = 8 * 26
    measured = printed[1]["dlrm"]["rows"]
    rows = {row["variant"]: (row["to_device"], row["to_host"]) for row in measured}
    assert rows["resident"] == (0, 0) and rows["naive"] == (N * 16, N * 16)
    assert rows["distinct"] == (round(U * 16), round(U * 24))
    assert rows["prefetch"] == (round(U * 18), round(U * 24))
    assert 0 < rows["cache 10% + prefetch"][0] < rows["cache 1%"][0] < rows["distinct"][0]
    for row in printed[1]["step"]["rows"]:
        if row["variant"] == "offloaded":
            assert row["to_host"] - row["to_device"] == row["to_device"] // 16 * 8


@pytest.mark.parametrize("name", ["distinct", "prefetch", "cache 1%", "cache 5% + prefetch"])
@pytest.mark.parametrize("way", ["to_device", "to_host"])
def test_a_byte_too_many_is_an_error(name: str, way: str, monkeypatch) -> None:
    def stray(*args):
        args[-1].add(**{way: 1})
        return taken(*args)

    taken, device = dlrm.table_for, torch.device("cpu")
    monkeypatch.setattr(dlrm, "table_for", stray)
    (variant,) = [variant for variant in dlrm.VARIANTS if variant.name == name]
    stream = dlrm.batches(dlrm.TINY, device)
    with pytest.raises(RuntimeError, match="by the formula|the formula says"):
        dlrm.train(variant, dlrm.TINY, dlrm.start(dlrm.TINY), stream, device)


def test_the_steps_meter_is_held_to_the_formula(monkeypatch) -> None:
    case = step.Case(60, 3, 20, "SGD")
    table = step.trained("offloaded", case, torch.rand(60, 3)).module
    ids = torch.arange(20)
    assert step._bytes(table, case, ids) == {"to_device": 240, "to_host": 400}
    monkeypatch.setattr(table.meter, "reset", lambda: None)  # so that earlier bytes still count
    with pytest.raises(RuntimeError, match="the formula says"):
        step._bytes(table, case, ids)


def test_zipf_is_zipfs_law() -> None:
    ids = common.zipf(50, (100, 1_000), s=1.05, seed=3)
    counts, expected = ids.flatten().bincount(minlength=50).double(), torch.arange(1.0, 51) ** -1.05
    found = counts.sort(descending=True).values / counts.sum()
    torch.testing.assert_close(found, (expected / expected.sum()).double(), atol=4e-3, rtol=0)
    assert counts.topk(5).indices.tolist() != [0, 1, 2, 3, 4]  # rows are in no order of frequency
    assert ids.equal(common.zipf(50, (100, 1_000), s=1.05, seed=3))


# --- What does not fit ------------------------------------------------------------------------


def test_what_does_not_fit_is_said_and_the_rest_goes_on(monkeypatch) -> None:
    def full(variant, *others):
        if variant.name == "resident":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return taken(variant, *others)

    taken = dlrm.table_for
    monkeypatch.setattr(dlrm, "table_for", full)
    p = dataclasses.replace(dlrm.TINY, rows=15_000)  # a cache of 1%: one batch, but not two
    record = dlrm.measured(p, torch.device("cpu"))
    rows = {row["variant"]: row for row in record["rows"]}
    why = {name: row["why"] for name, row in rows.items() if not row["fits"]}
    assert why == {"resident": "out of memory", "cache 1% + prefetch": "its cache is too small"}
    assert rows["cache 5% + prefetch"]["to_resident"] is None
    assert rows["cache 5% + prefetch"]["to_naive"] > 0
    told = common.text(dlrm.report(record))
    assert re.search(r"^resident +does not fit: out of memory$", told, re.MULTILINE)


def test_other_errors_are_not_swallowed(monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(dlrm, "table_for", broken)
    with pytest.raises(RuntimeError, match="something else"):
        dlrm.measured(dlrm.TINY, torch.device("cpu"))


# --- What is told -----------------------------------------------------------------------------


def test_the_printed_tables_name_every_variant_and_how_to_read_them(printed) -> None:
    lines = printed[0].splitlines()
    for variant in dlrm.VARIANTS:
        assert sum(bool(re.match(re.escape(variant.name) + "  ", line)) for line in lines) == 2
    (header,) = [line for line in lines if "sparse ms" in line]
    assert all(re.search(rf" {name}\b", header) for name in step.VARIANTS)
    assert "how many times as long as" in printed[0] and "How many times the" in printed[0]
    assert re.search(r"V = 400 / 200, .*(met|MISSED)$", printed[0], re.MULTILINE)


def test_columns_are_aligned_numbers_to_the_right() -> None:
    told = common.text([("Heading", [("name", "n"), ("a", "1.00"), ("bcdef", "200.00")])])
    assert told.splitlines() == [
        "Heading", "", "name        n", "a        1.00", "bcdef  200.00"
    ]  # fmt: skip


RECORDS = sorted(common.MEASUREMENTS.glob("*.json"))
HEAD = {"benchmark", "device", "cpu", "threads", "versions", "date", "parameters", "rows"}
OF_STEP = {"V", "D", "ids", "drawn", "optimizer", "variant", "seconds", "median", "ratio"}
OF_DLRM = {"variant", "fits", "seconds", "rounds", "samples_per_second", "to_resident", "to_naive",
           "to_device", "to_host", "parts", "bound"}  # fmt: skip


def check(record: dict) -> None:
    assert record.keys() >= HEAD | {"targets"}
    assert record["versions"].keys() == {"python", "torch", "numpy"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["device"] and record["cpu"] and record["threads"] >= 1
    for row in record["rows"]:
        if row.get("fits", True):
            assert row.keys() >= (OF_STEP if record["benchmark"] == "step" else OF_DLRM)
            assert row["seconds"] > 0
    text = json.dumps(record)
    for private in (common.ROOT, Path.home(), "/home/", "/Users/", f'"{platform.node()}"'):
        assert str(private) not in text


def test_the_json_has_its_fields_and_nothing_private(printed) -> None:
    assert printed[1].keys() == {"dlrm", "step"}
    for record in printed[1].values():
        check(record)
    sparse = [row for row in printed[1]["step"]["rows"] if row["variant"] == "sparse"]
    assert len(sparse) == 3 and all(row["ratio"] == 1 for row in sparse)
    ratios = {row["variant"]: row for row in printed[1]["dlrm"]["rows"]}
    assert ratios["resident"]["to_resident"] == ratios["naive"]["to_naive"] == 1
    for row in ratios.values():
        expected = ratios["naive"]["seconds"] / row["seconds"]
        assert row["to_naive"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_the_stored_records_can_be_read(path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    check(record)
    assert path.name.startswith(record["benchmark"] + "-")
    module = {"step": step, "dlrm": dlrm}[record["benchmark"]]
    assert common.text(module.report(record))  # so what is stored can be printed again
