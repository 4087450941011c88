"""Two processes compute what one does, and end, whatever happens to them or to who started them."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

from helpers import sharded

ROOT = Path(__file__).resolve().parents[2]
V, D = 11, 4  # an odd number of rows: the shards have 6 and 5
OPTIMIZERS = ["SGD", "Adam", "AdamW"]

# --- What runs in the processes, and here -----------------------------------------------------


class Factors(nn.Module):
    """Users and items, as tables of one width: a score is the dot product of their rows."""

    def __init__(self, users: torch.Tensor, items: torch.Tensor) -> None:
        super().__init__()
        self.users = nn.Embedding.from_pretrained(users.clone(), freeze=False)
        self.items = nn.Embedding.from_pretrained(items.clone(), freeze=False)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)


def by_rows() -> RowwiseParallel:
    return RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate())


def sharded_table(weight: torch.Tensor, **options: object) -> nn.Embedding:
    table = nn.Embedding.from_pretrained(weight.clone(), freeze=False, **options)
    return parallelize_module(table, init_device_mesh("cpu", (dist.get_world_size(),)), by_rows())


def train(model: nn.Module, name: str, batches: torch.Tensor, target: torch.Tensor) -> list:
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    losses = []
    for ids in batches:
        optimizer.zero_grad()
        loss = ((model(ids) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [losses, optimizer.state_dict()["state"].get(0, {})]


def everything(data: dict) -> dict:
    """One launch for all that needs DTensor, whose import is most of a launch's time."""
    weight, ids, target = data["weight"], data["ids"], data["target"]
    result = {}
    for name in OPTIMIZERS:
        table = sharded_table(weight)
        losses, state = train(table, name, ids, target)
        result[name] = {
            "losses": losses,
            "forward": table(ids[0]),
            "local": table.weight.to_local(),
            "weight": table.weight.full_tensor(),
            "gradient": table.weight.grad.to_local(),
            "state": {k: v.to_local() if isinstance(v, DTensor) else v for k, v in state.items()},
        }
    model = Factors(data["users"], data["items"])
    plan = {"users": by_rows(), "items": by_rows()}
    parallelize_module(model, init_device_mesh("cpu", (2,)), plan)
    losses, _ = train(model, "Adam", data["pairs"], data["ratings"])
    result["factors"] = {
        "losses": losses,
        "users": model.users.weight.full_tensor(),
        "local": list(model.items.weight.to_local().shape),
    }
    result["outside"] = sharded_table(weight)(torch.tensor([V, -1]))
    try:
        sharded._write(Path(os.devnull), sharded_table(weight).weight)
    except TypeError as error:
        result["of a DTensor"] = str(error)
    print("rank", dist.get_rank(), "says: done")
    return result


@pytest.fixture(scope="module")
def data() -> dict:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack([torch.randint(n, (6, 9), generator=generator) for n in (8, 5)], dim=2)
    return {
        "weight": torch.randn(V, D, generator=generator),
        "ids": torch.randint(V, (5, 7), generator=generator),
        "target": torch.randn(7, D, generator=generator),
        "users": torch.randn(8, 3, generator=generator),
        "items": torch.randn(5, 3, generator=generator),
        "pairs": pairs,
        "ratings": torch.randn(9, generator=generator),
    }


@pytest.fixture(scope="module")
def ranks(data: dict) -> list[dict]:
    # Whatever a cluster's launcher left in the environment, and a taken port, are of no account.
    with socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        patch.setenv("MASTER_ADDR", "no.such.host.invalid")
        patch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        patch.setenv("PYTHONWARNINGS", "error")
        return sharded.run(everything, data)


# --- The sharded table ------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_forward_backward_and_step_equal_one_process(name: str, data: dict, ranks: list) -> None:
    table = nn.Embedding.from_pretrained(data["weight"].clone(), freeze=False)
    losses, state = train(table, name, data["ids"], data["target"])
    assert not torch.allclose(table.weight, data["weight"], atol=0.01)
    for rank in ranks:
        assert rank[name]["losses"] == pytest.approx(losses)
        torch.testing.assert_close(rank[name]["weight"], table.weight.detach())
        torch.testing.assert_close(rank[name]["gradient"], table.weight.grad)
        torch.testing.assert_close(rank[name]["forward"], table(data["ids"][0]).detach())
        for key, value in state.items():
            mine = value if value.ndim == 0 else value[6:] if rank is ranks[1] else value[:6]
            torch.testing.assert_close(rank[name]["state"][key], mine)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_and_state_are_cut_and_the_gradient_is_whole(name: str, ranks: list) -> None:
    for rank, rows in zip(ranks, (6, 5), strict=True):
        assert rank[name]["local"].shape == (rows, D)
        state = [tuple(value.shape) for value in rank[name]["state"].values()]
        assert sorted(state) == ([] if name == "SGD" else [(), (rows, D), (rows, D)])
        assert rank[name]["gradient"].shape == (V, D)


def test_two_tables_learn_as_in_one_process(data: dict, ranks: list) -> None:
    model = Factors(data["users"], data["items"])
    losses, _ = train(model, "Adam", data["pairs"], data["ratings"])
    for rank, items in zip(ranks, (3, 2), strict=True):
        assert rank["factors"]["losses"] == pytest.approx(losses)
        torch.testing.assert_close(rank["factors"]["users"], model.users.weight.detach())
        assert rank["factors"]["local"] == [items, 3]


def test_an_id_that_no_rank_has_is_a_row_of_zeros(ranks: list) -> None:
    for rank in ranks:
        assert torch.equal(rank["outside"], torch.zeros(2, D))


def test_one_rank_of_many_that_are_not_there() -> None:
    for processes in (64, 8):  # the second finds nothing that the first left
        with sharded.pretended(processes, rank=processes - 1):
            table = sharded_table(torch.randn(6400, 2))
            train(table, "Adam", torch.tensor([[5]]), torch.ones(1, 2))
            assert table.weight.to_local().shape == (6400 // processes, 2)
            assert table.weight.grad.to_local().shape == (6400, 2)
        assert not dist.is_initialized()


def test_what_row_wise_sharding_refuses() -> None:
    weight = torch.randn(10, 2)
    with sharded.pretended(2):
        with pytest.raises(NotImplementedError, match="_sparse_coo_tensor"):
            sharded_table(weight, sparse=True)(torch.tensor([1])).sum().backward()
        with pytest.raises(NotImplementedError, match="embedding_renorm_"):
            sharded_table(weight, max_norm=1.0)(torch.tensor([1]))
        with pytest.raises(NotImplementedError, match=r"only support nn.Linear and nn.Embedding"):
            parallelize_module(nn.EmbeddingBag(10, 2), init_device_mesh("cpu", (2,)), by_rows())
    with pytest.raises(ValueError, match="rank is 2 of 2 processes: pass 0 to 1"):
        with sharded.pretended(2, rank=2):
            pass
    assert not dist.is_initialized()


# --- What goes there and comes back -----------------------------------------------------------


def factor() -> int:
    return 3


def kinds(*given: object) -> dict:
    print("given", len(given))
    first = given[0]
    return {"given": list(given), "tripled": first * factor(), "rank": dist.get_rank(), "V": V}


def test_values_keep_their_kinds(capsys) -> None:
    given = (
        torch.arange(6).reshape(2, 3),
        torch.tensor(2.5, dtype=torch.float64),
        torch.empty(0, 3),
        torch.tensor([True, False]),
        np.arange(3.0),
        np.float32(0.5),
        {"a": [1, None, "λ", {"b": torch.ones(1, requires_grad=True)}]},
        float("inf"),
    )
    (answer,) = sharded.run(kinds, *given, processes=1)
    assert answer["rank"] == 0 and answer["V"] == V
    assert torch.equal(answer["tripled"], given[0] * 3)
    back = answer["given"]
    for sent, got in zip(given[:5], back[:5], strict=True):
        torch.testing.assert_close(got, torch.as_tensor(sent), rtol=0, atol=0)
    assert back[5] == 0.5 and back[7] == float("inf")
    assert back[6]["a"][:3] == [1, None, "λ"] and back[6]["a"][3]["b"].tolist() == [1]
    assert capsys.readouterr().out == "[rank 0] given 8\n"


def test_a_dtensor_says_what_to_send_instead(ranks: list) -> None:
    assert ranks[0]["of a DTensor"].endswith("send its to_local() or full_tensor()")


TABLE = nn.Embedding(3, 2)


def uses_a_module() -> None:
    TABLE(torch.tensor([1]))


def test_what_cannot_be_sent_is_said_before_anything_starts(monkeypatch) -> None:
    monkeypatch.setattr(sharded, "_start", None)
    with pytest.raises(TypeError, match="uses_a_module uses TABLE, .* type Embedding cannot be"):
        sharded.run(uses_a_module)
    with pytest.raises(TypeError, match="a value of type Embedding cannot be sent"):
        sharded.run(kinds, TABLE)
    with pytest.raises(TypeError, match="<lambda>: pass a function that is defined by def"):
        sharded.run(lambda: 1)
    with pytest.raises(TypeError, match="Embedding: pass a function"):
        sharded.run(TABLE)
    space = {}
    exec("def typed(): pass", space)
    with pytest.raises(ValueError, match="source text of typed is not to be found"):
        sharded.run(space["typed"])
    for processes in (0, 1.5, True):
        with pytest.raises(ValueError, match="processes is"):
            sharded.run(kinds, 1, processes=processes)
    for timeout in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout is"):
            sharded.run(kinds, 1, timeout=timeout)


def test_a_pytorch_without_an_engine_says_so_in_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    with pytest.raises(RuntimeError, match="was built without gloo, its engine for CPUs: install"):
        sharded.run(kinds, 1)
    monkeypatch.setattr(dist, "is_available", lambda: False)
    for start in (lambda: sharded.run(kinds, 1), sharded.pretended(2).__enter__):
        with pytest.raises(RuntimeError, match="was built without torch.distributed: install"):
            start()


# --- Nothing is left --------------------------------------------------------------------------


def child_and_note(folder: str) -> None:
    """Start a process that would outlive its parent, and note both."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    note = Path(folder) / f"pids{dist.get_rank()}"
    note.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    note.with_suffix(".part").rename(note)  # there with all that is in it


def ends_well(folder: str) -> str:
    child_and_note(folder)
    return "well"


def raises(folder: str) -> None:
    child_and_note(folder)
    if dist.get_rank() == 1:
        raise ValueError("row 7\nand much more")
    dist.all_reduce(torch.ones(1))


def dies(folder: str) -> None:
    child_and_note(folder)
    if dist.get_rank() == 1:
        sys.stderr.write("a last word\n")
        sys.stderr.flush()
        os._exit(3)
    dist.all_reduce(torch.ones(1))


def waits_for_each_other(folder: str) -> None:
    child_and_note(folder)
    if dist.get_rank() == 0:
        dist.all_reduce(torch.ones(1))
    time.sleep(300)


def leaves_early() -> None:
    if dist.get_rank() == 1:
        dist.all_reduce(torch.ones(1))


def takes_a_port(port: int) -> None:
    dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)


def pids(folder: Path) -> list[int]:
    notes = [folder / f"pids{rank}" for rank in (0, 1)]
    if not all(note.is_file() for note in notes):
        return []
    return [int(pid) for note in notes for pid in note.read_text(encoding="utf-8").split()]


def until(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def none_left(folder: Path) -> bool:
    assert len(pids(folder)) == 4
    # On Windows what an ended rank left running has no tie to it.
    ours = pids(folder) if os.name == "posix" else pids(folder)[::2]
    return until(lambda: not any(map(running, ours)), 10)


def test_nothing_is_left_after_success(tmp_path: Path) -> None:
    assert sharded.run(ends_well, str(tmp_path)) == ["well", "well"]
    assert none_left(tmp_path)


def test_the_first_failure_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        sharded.run(raises, str(tmp_path))
    assert str(caught.value) == (
        'rank 1 failed at line 4 of raises, `raise ValueError("row 7\\nand much more")`: '
        "ValueError: row 7"
    )
    assert none_left(tmp_path)


def test_of_two_failures_the_first_is_told(tmp_path: Path) -> None:
    for rank, when in ((0, 2), (1, 1)):
        report = tmp_path / f"failed{rank}"
        report.write_text("at line 1 of f, `g()`: ValueError: no\nmore", encoding="utf-8")
        os.utime(report, (when, when))
    told = sharded._first_failure([1, 1], tmp_path)
    assert told == "rank 1 failed at line 1 of f, `g()`: ValueError: no"
    assert sharded._first_failure([1, None], tmp_path).startswith("rank 0 failed")


def test_a_rank_that_dies_without_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="^rank 1 ended with exit code 3: a last word$"):
        sharded.run(dies, str(tmp_path))
    assert none_left(tmp_path)


def test_a_rank_that_waits_for_one_that_is_done() -> None:
    with pytest.raises(RuntimeError, match=r"^rank 1 failed at line 3 of leaves_early, `dist.all_"):
        sharded.run(leaves_early)


def test_a_taken_port_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as caught:
            sharded.run(takes_a_port, port, processes=1)
    assert str(port) in str(caught.value) and "at line 2 of takes_a_port" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_ranks_that_wait_for_each_other_are_ended_in_time(tmp_path: Path, monkeypatch) -> None:
    passed = []  # a clock that stands still until both ranks wait

    def clock() -> float:
        if pids(tmp_path):
            passed.append(0.02)
        return sum(passed)

    monkeypatch.setattr(sharded, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    with pytest.raises(TimeoutError) as caught:
        sharded.run(waits_for_each_other, str(tmp_path), timeout=1.0)
    assert str(caught.value) == (
        "not done after 1 seconds, so all were ended. "
        "rank 0: at line 4 of waits_for_each_other, `dist.all_reduce(torch.ones(1))`; "
        "rank 1: at line 5 of waits_for_each_other, `time.sleep(300)`"
    )
    assert none_left(tmp_path)


CELLS = """
import os, subprocess, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from helpers import sharded

class Table(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)
    def forward(self, ids):
        return self.weight[ids]

def ids():
    return torch.tensor([2])

def program(weight):
    return Table(weight)(ids()) + dist.get_rank()
# next cell
print(sharded.run(program, torch.arange(6.0).reshape(3, 2)))
# next cell
sharded.run(waits_for_each_other, "interrupted")
# next cell
sharded.run(waits_for_each_other, "abandoned")
"""


class ThisInterpreter(KernelManager):
    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


def test_cells_of_a_notebook_and_a_kernel_that_is_interrupted_and_killed(
    tmp_path: Path, monkeypatch
) -> None:
    for name in ("interrupted", "abandoned", "temporary"):
        (tmp_path / name).mkdir()
    for variable in ("TMPDIR", "TEMP"):  # for POSIX, for Windows
        monkeypatch.setenv(variable, str(tmp_path / "temporary"))
    definitions = "\n".join(map(sharded._text, (child_and_note, waits_for_each_other)))
    first, second, third, fourth = CELLS.split("# next cell\n")
    manager = ThisInterpreter()
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        said = []

        def hook(message: dict) -> None:
            said.append(message["content"].get("text", ""))

        for cell in (first + definitions, second):
            reply = client.execute_interactive(cell, timeout=60, output_hook=hook)
            assert reply["content"]["status"] == "ok", reply["content"]
        assert "".join(said) == "[tensor([[4., 5.]]), tensor([[5., 6.]])]\n"

        client.execute(third, stop_on_error=False)  # else the kernel may drop the next cell
        assert until(lambda: pids(tmp_path / "interrupted"))
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
        assert not any(map(running, pids(tmp_path / "interrupted")[::2]))  # at once
        assert none_left(tmp_path / "interrupted")

        client.execute(fourth)
        assert until(lambda: pids(tmp_path / "abandoned"))
        # Not by the manager, which interrupts first, so that the kernel would clean up itself.
        psutil.Process(manager.provisioner.pid).kill()
        assert none_left(tmp_path / "abandoned")
        if os.name == "posix":  # Windows keeps a folder in which a file is open
            assert until(lambda: not list((tmp_path / "temporary").glob("sharded-*")), 10)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# --- TorchRec ---------------------------------------------------------------------------------

TORCHREC_SAYS = [
    f"{optimizer}, rank {rank}: rows {first} to {first + 499}, 32,000 bytes, "
    f"and {state} bytes of state; after 5 steps equal to one process"
    for optimizer, state in (("SGD", "0"), ("RowWiseAdagrad", "2,000"))
    for rank, first in enumerate((0, 500))
]


@pytest.mark.skipif(
    not importlib.util.find_spec("torchrec"),
    reason="TorchRec is not installed: see requirements-torchrec.txt",
)
def test_torchrec_computes_the_numbers_of_one_process() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(ROOT / "notebooks" / "programs" / "11_torchrec.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == TORCHREC_SAYS


def test_torchrec_is_the_release_for_our_pytorch() -> None:
    def pinned(name: str, package: str) -> list[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        (version,) = (line.split("==")[1] for line in lines if line.startswith(f"{package}=="))
        return version.split(".")

    # TorchRec 1.n and fbgemm-gpu 1.n are built against PyTorch 2.(n + 5).
    _, minor, _ = pinned("requirements.txt", "torch")
    for package in ("torchrec", "fbgemm-gpu-cpu"):
        major, release, _ = pinned("requirements-torchrec.txt", package)
        assert (major, int(release)) == ("1", int(minor) - 5)


def test_torchrec_is_installed_and_run_by_the_same_words_everywhere() -> None:
    install = ".venv/bin/python -m pip install --no-deps -r requirements-torchrec.txt"
    launch = ".venv/bin/torchrun --standalone --nproc-per-node=2 notebooks/programs/11_torchrec.py"
    run_test = ".venv/bin/python -m pytest -q -rs tests/helpers/test_sharded.py -k torchrec"
    for place, commands in {
        "requirements-torchrec.txt": [install],
        "notebooks/programs/11_torchrec.py": [install, launch, run_test],
        ".github/workflows/tests.yml": [install, run_test],
    }.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        assert all(command in text for command in commands), place
