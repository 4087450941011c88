"""A table on the host in several processes: DDP over gloo, the net apart or sharded."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from host_tables import plain_of, rows_of, small_cache_of, stepper_of, table_of, zipf
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from helpers.offload import Prefetcher

ROWS, BATCHES = rows_of(20, 3), zipf(20, 8, 6)


def net_of() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 2)


def trained(rank: int, world: int, how: str, sparse: bool) -> list[Tensor]:
    """Weights after training with a part of each batch; the net apart, or sharded."""
    table, net, gloo = table_of(ROWS, sparse=sparse), net_of(), dist.new_group(backend="gloo")
    averaged = DistributedDataParallel(table, process_group=gloo)
    if how == "ddp":
        model = nn.Sequential(averaged, DistributedDataParallel(net))
    else:
        mesh, model = init_device_mesh("cpu", (world,)), nn.Sequential(averaged, net)
        fully_shard(model, mesh=mesh, ignored_params={table.weight})
    stepper, rest = stepper_of(table), torch.optim.SGD(net.parameters(), lr=0.1)
    for ids in Prefetcher([ids[rank::world].clone() for ids in BATCHES], table, optimizer=stepper):
        model.zero_grad()
        model(ids).square().sum().backward()
        assert table.weight.grad.is_sparse == sparse
        stepper.step()
        rest.step()
    weight = net.weight if how == "ddp" else net.weight.full_tensor()
    return [table.weight.detach(), weight.detach()]


def process(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store, minute = f"file://{folder / 'store'}", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", store, minute, world, rank)
    many = [(how, sparse) for how in ("ddp", "fsdp") for sparse in (True, False)]
    torch.save([trained(rank, world, *how) for how in many], folder / str(rank))
    model = DistributedDataParallel(nn.Sequential(small_cache_of(ROWS), net_of()))
    with pytest.raises(RuntimeError, match="Expected sparse gradient"):
        model(BATCHES[0]).sum().backward()
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    plain, net = plain_of(ROWS), net_of()
    optimizer = torch.optim.SGD([*plain.parameters(), *net.parameters()], lr=0.1)
    for ids in BATCHES:
        optimizer.zero_grad()
        (net(plain(ids)).square().sum() / 2).backward()
        optimizer.step()
    torch.multiprocessing.spawn(process, (2, tmp_path), nprocs=2)
    for rank in ("0", "1"):
        for found in torch.load(tmp_path / rank):
            torch.testing.assert_close(found, [plain.weight.detach(), net.weight.detach()])
