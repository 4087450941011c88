"""The benchmarks at a tiny size: every variant trains the same table, and what is told is there.

Nothing here asks how long anything takes.
"""

import dataclasses
import importlib.util
import json
import platform
import re
from pathlib import Path

import pytest
import torch

from tools.bench import common, dlrm, files, skipgram, step
from tools.bench.__main__ import main

GENSIM = importlib.util.find_spec("gensim") is not None
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> tuple[str, dict[str, dict]]:
    """What `make bench` prints at the tiny size, and the JSON that it writes, by benchmark."""
    into = tmp_path_factory.mktemp("measurements")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("tools.bench.__main__.print", lambda *parts, **_: lines.extend(parts),
                      raising=False)  # fmt: skip
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


# --- The climb to helpers.skipgram ------------------------------------------------------------


def climb(negative: int = 3) -> tuple[skipgram.Tables, tuple, torch.Tensor, torch.Tensor]:
    """Tables of 30 words in float64, two blocks, and the gradients to expect of each table."""
    generator = torch.Generator().manual_seed(0)
    V, D, w, counts = 30, 4, 2, torch.arange(60, 0, -2)
    rows, contexts = (torch.randn(V, D, dtype=torch.float64, generator=generator) for _ in "rc")
    tables = skipgram.Tables(rows, contexts, counts, negative, rate=1.0)
    ids = torch.randint(V, (2, 20), generator=generator)
    sentence = (torch.rand(2, 20, generator=generator) < 0.3).cumsum(1).float()
    reach = torch.randint(1, w + 1, (2, 16), generator=generator).float()
    centre, context = skipgram.pairs(ids, sentence, reach)
    of_pair = torch.zeros(V, V, dtype=torch.float64)
    of_pair.index_put_((centre, context), torch.ones(1, dtype=torch.float64), accumulate=True)
    noise = counts.double() ** 0.75
    found = torch.sigmoid(rows @ contexts.T)
    error = of_pair * (found - 1)
    error += negative * of_pair.sum(1, keepdim=True) * noise / noise.sum() * found
    return tables, (ids, sentence, reach), error @ contexts, error.T @ rows


def test_the_pairs_of_a_block_are_those_a_loop_finds() -> None:
    _, (ids, sentence, reach), *_ = climb()
    expected = [
        (ids[b, i + 2].item(), ids[b, j].item())
        for b in range(2) for i in range(16) for j in range(20)
        if 0 < abs(j - i - 2) <= reach[b, i] and sentence[b, j] == sentence[b, i + 2]
    ]  # fmt: skip
    found = torch.stack(skipgram.pairs(ids, sentence, reach), dim=1).tolist()
    assert sorted(map(tuple, found)) == sorted(expected) and len(expected) > 30


def test_gradients_by_hand_are_those_of_autograd() -> None:
    ends = []
    for name in ("autograd", "by hand"):
        tables, block, *_ = climb()
        step, _ = skipgram.PAIRWISE[name]
        step(tables, *skipgram.pairs(*block))
        ends += [(tables.rows, tables.contexts)]
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("name", ["by hand", "shared negatives", "blocks"])
def test_each_step_of_the_climb_has_the_same_gradient_to_expect(name: str) -> None:
    tables, block, *expected = climb()
    start, repeats = (tables.rows.clone(), tables.contexts.clone()), 1_000
    sums = [torch.zeros_like(table) for table in start]
    for _ in range(repeats):
        if name in skipgram.BLOCKWISE:
            skipgram.BLOCKWISE[name](tables, *block)
        else:
            skipgram.PAIRWISE[name][0](tables, *skipgram.pairs(*block))
        for total, table, before in zip(sums, (tables.rows, tables.contexts), start, strict=True):
            total += (before - table) / repeats
            table.copy_(before)
    for total, gradient in zip(sums, expected, strict=True):
        assert (total - gradient).norm() < 0.05 * gradient.norm()


def test_the_last_step_of_the_climb_is_the_helpers_gradient() -> None:
    tables, block, *_ = climb()
    ids, sentence, reach = block
    start = tables.rows.clone(), tables.contexts.clone()
    skipgram.BLOCKWISE["weighted negatives"](tables, *block)
    gradients = skipgram.skipgram.gradients(start[0][ids[:, 2:-2]], start[1][ids], sentence, reach,
                                            tables.weights[ids], 3)  # fmt: skip
    for table, before, index, gradient in zip(
        (tables.rows, tables.contexts), start, (ids[:, 2:-2], ids), gradients, strict=True
    ):
        expected = before.index_add(0, index.flatten(), gradient.flatten(0, 1), alpha=-1)
        assert not expected.equal(before)
        torch.testing.assert_close(table, expected)


def test_without_gensim_the_comparison_is_left_out_and_says_so(monkeypatch, tmp_path) -> None:
    lines: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("tools.bench.__main__.print", lambda *parts, **_: lines.extend(parts),
                        raising=False)  # fmt: skip
    main(["skipgram", "--tiny", "--into", str(tmp_path)])
    assert len(lines) == 1 and "gensim, which is not installed" in lines[0]
    assert not list(tmp_path.iterdir())


# --- What does not fit ------------------------------------------------------------------------


def test_what_does_not_fit_is_said_and_the_rest_goes_on(monkeypatch) -> None:
    def full(variant, *others):
        if variant.name == "resident":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return taken(variant, *others)

    taken = dlrm.table_for
    monkeypatch.setattr(dlrm, "table_for", full)
    p = dataclasses.replace(dlrm.TINY, rows=6_000)  # a cache of 1%: less than one batch
    record = dlrm.measured(p, torch.device("cpu"))
    rows = {row["variant"]: row for row in record["rows"]}
    why = {name: row["why"] for name, row in rows.items() if not row["fits"]}
    small = {name: "its cache is too small" for name in ("cache 1%", "cache 1% + prefetch")}
    assert why == {"resident": "out of memory", **small}
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


def test_a_file_too_large_for_the_folder_or_no_gensim_is_said(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda _: object())
    assert files.missing(files.TINY, str(tmp_path)) is None
    told = files.missing(files.Parameters(words=10**12), str(tmp_path))
    assert "needs 1320000.0 GB" in told and str(tmp_path) in told and "--folder" in told
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda _: None)
    assert "gensim, which is not installed" in files.missing(files.TINY, None)


def test_files_that_load_as_something_else_are_not_timed(monkeypatch, tmp_path) -> None:
    pytest.importorskip("gensim", reason="gensim is not installed")
    files.write(tmp_path / "generated.bin", files.TINY)
    files.check(tmp_path / "generated.bin", files.TINY)
    load = files.word2vec.load
    monkeypatch.setattr(files.word2vec, "load", lambda *a, **k: (load(*a, **k)[0], 0))
    with pytest.raises(RuntimeError, match="load different"):
        files.check(tmp_path / "generated.bin", files.TINY)


# --- What is told -----------------------------------------------------------------------------


def test_the_printed_tables(printed) -> None:
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
OF_FILES = {"way", "seconds", "median", "times_as_fast", "memory"}
OF_DLRM = {"variant", "fits", "seconds", "rounds", "samples_per_second", "to_resident", "to_naive",
           "to_device", "to_host", "parts", "bound"}  # fmt: skip
OF_SKIPGRAM = {"way", "negative", "seed", "seconds", "words_per_second", "kept analogies",
               "kept pairs", "choosing analogies", "choosing pairs"}  # fmt: skip
FIELDS = {"step": OF_STEP, "dlrm": OF_DLRM, "files": OF_FILES, "skipgram": OF_SKIPGRAM}


def check(record: dict) -> None:
    assert record.keys() >= HEAD | {"targets"}
    assert record["versions"].keys() == {"python", "torch", "numpy"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["device"] and record["cpu"] and record["threads"] >= 1
    for row in record["rows"]:
        if row.get("fits", True):
            assert row.keys() >= FIELDS[record["benchmark"]]
            assert row["seconds"] > 0
    text = json.dumps(record)
    for private in (common.ROOT, Path.home(), "/home/", "/Users/", f'"{platform.node()}"'):
        assert str(private) not in text


def test_the_json_has_its_fields_and_nothing_private(printed) -> None:
    assert printed[1].keys() == {"dlrm", "step", *(["files", "skipgram"] if GENSIM else [])}
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
    module = {"step": step, "dlrm": dlrm, "files": files, "skipgram": skipgram}[record["benchmark"]]
    assert common.text(module.report(record))  # so what is stored can be printed again
