"""A table cut over several processes learns what a whole one learns.

On Linux and macOS, in the repository's folder:
torchrun --standalone --nproc-per-node=2 notebooks/programs/11_two_processes.py
"""

import json

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

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))

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


whole = nn.Embedding.from_pretrained(start.clone(), freeze=False)
whole_rows, _ = train(whole)

for cut, style in STYLES.items():
    table = nn.Embedding.from_pretrained(start.clone(), freeze=False)
    # Replicate: every process brings all ids and wants all rows.
    plan = style(input_layouts=Replicate(), output_layouts=Replicate())
    parallelize_module(table, mesh, plan)
    rows, state = train(table)

    torch.testing.assert_close(rows, whole_rows)
    torch.testing.assert_close(table.weight.full_tensor(), whole.weight)
    torch.testing.assert_close(table.weight.grad.full_tensor(), whole.weight.grad)

    here = {  # what lies in this process, in bytes
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
