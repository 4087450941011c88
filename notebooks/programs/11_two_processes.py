"""A table cut over two processes learns what a whole one learns.

It starts its two processes by itself. On Linux and macOS torchrun can do that, too. In the
repository's folder: python notebooks/programs/11_two_processes.py, or
torchrun --standalone --nproc-per-node=2 notebooks/programs/11_two_processes.py
"""

import json
import os
import socket
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

V = 1000
D = 16
STYLES = {"rows": RowwiseParallel, "columns": ColwiseParallel}

torch.manual_seed(0)  # every process draws the same numbers
start = torch.randn(V, D)
batches = torch.randint(V, (3, 64))
G = torch.randn(64, D)


def train(table):
    optimizer = torch.optim.Adam(table.parameters(), lr=0.1)
    for ids in batches:
        optimizer.zero_grad()
        rows = table(ids)
        (rows * G).sum().backward()
        optimizer.step()
    return rows, optimizer.state[table.weight]


def cut_and_compare(style, mesh):
    whole = nn.Embedding.from_pretrained(start.clone(), freeze=False)
    whole_rows, _ = train(whole)

    table = nn.Embedding.from_pretrained(start.clone(), freeze=False)
    # Replicate: every process brings all ids and wants all rows.
    plan = style(input_layouts=Replicate(), output_layouts=Replicate())
    parallelize_module(table, mesh, plan)
    rows, state = train(table)

    torch.testing.assert_close(rows, whole_rows)
    torch.testing.assert_close(table.weight.full_tensor(), whole.weight)
    torch.testing.assert_close(table.weight.grad.full_tensor(), whole.weight.grad)
    return table, state


def work():
    """What each process does; the one of rank 0 prints what lies in each, in bytes."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for cut, style in STYLES.items():
        table, state = cut_and_compare(style, mesh)
        here = {
            "cut": cut,
            "rank": dist.get_rank(),
            "weight": table.weight.to_local().nbytes,
            "state": sum(state[name].to_local().nbytes for name in ("exp_avg", "exp_avg_sq")),
            "gradient": table.weight.grad.to_local().nbytes,
        }
        reports = [None] * dist.get_world_size()
        dist.all_gather_object(reports, here)
        if dist.get_rank() == 0:
            for report in reports:
                print(json.dumps(report))
    dist.destroy_process_group()


def work_as(rank, port):
    """What torchrun would tell a process, told here."""
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if sys.platform != "win32":  # talk inside this machine, whose name may lead nowhere
        told["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    os.environ.update(told)
    work()


if __name__ == "__main__":
    if dist.is_torchelastic_launched():  # torchrun has started this process
        work()
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # any port that is free
            port = str(free.getsockname()[1])
        torch.multiprocessing.spawn(work_as, (port,), nprocs=2)
