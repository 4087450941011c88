"""Lesson 11's programs compute, on two processes, the numbers of one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "notebooks" / "programs"
LAUNCH = "torchrun --standalone --nproc-per-node=2 notebooks/programs/"


def printed(name: str) -> list[str]:
    """The lines that a program prints under torchrun, in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr=127.0.0.1", "--nproc-per-node=2", str(PROGRAMS / name)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    if sys.platform in ("linux", "darwin"):  # this host's name may not resolve
        settings["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun 2.13 fails on Windows: no libuv")
def test_two_processes_hold_half_and_by_rows_the_whole_gradient() -> None:
    found = [json.loads(line) for line in printed("11_two_processes.py")]
    assert found == [
        {"cut": cut, "rank": rank, "weight": 32_000, "state": 64_000, "gradient": gradient}
        for cut, gradient in (("rows", 64_000), ("columns", 32_000))
        for rank in (0, 1)
    ]


def test_the_command_is_the_same_everywhere() -> None:
    for name in ("11_two_processes.py", "11_torchrec.py"):
        assert LAUNCH + name in (PROGRAMS / name).read_text("utf-8")


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
    assert printed("11_torchrec.py") == TORCHREC_SAYS


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


def test_torchrecs_commands_agree() -> None:
    install = ".venv/bin/python -m pip install --no-deps -r requirements-torchrec.txt"
    launch = f".venv/bin/{LAUNCH}11_torchrec.py"
    run_test = ".venv/bin/python -m pytest -q -rs tests/lessons/test_programs.py -k torchrec"
    for place, commands in {
        "requirements-torchrec.txt": [install],
        "notebooks/programs/11_torchrec.py": [install, launch, run_test],
        ".github/workflows/tests.yml": [install, run_test],
    }.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        assert all(command in text for command in commands), place
