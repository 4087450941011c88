"""TorchRec cuts a table by rows over two processes: the same numbers as one process.

Beside lesson 11, for Linux. TorchRec is no part of the course's environment; this adds it
(`make clean` takes it away again):

    .venv/bin/python -m pip install --no-deps -r requirements-torchrec.txt

this runs the program, in two processes that meet at a free port:

    .venv/bin/torchrun --standalone --nproc-per-node=2 notebooks/programs/11_torchrec.py

and this runs the test that is skipped otherwise:

    .venv/bin/python -m pytest -q -rs tests/lessons/test_programs.py -k torchrec

A release of TorchRec is built against one of PyTorch, 1.8 against 2.13. `--no-deps`, since it asks
for the CUDA build of fbgemm-gpu, which without a GPU breaks the import.

Each process brings half of every batch, asks both shards for its rows, and gets them. In the
backward pass the gradients go back to the shards, which average over the processes and update the
rows at once: no optimizer.step(), and no gradient of the table's size anywhere.
"""

import torch
import torch.distributed as dist
from torch import nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import KernelConfig, TopologyFactory, TrainerConfig
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

V = 1000
D = 16
BATCH = 64
STEPS = 5
RATE = 0.5


def sharded_table(weight: torch.Tensor, optimizer: type) -> DistributedModelParallel:
    """The table `weight` with its rows on all processes, and `optimizer` built into backward."""
    config = EmbeddingConfig(
        name="table", num_embeddings=V, embedding_dim=D, feature_names=["word"]
    )
    # On meta the table has a shape and no bytes: no process ever holds all of it.
    model = EmbeddingCollection(tables=[config], device=torch.device("meta"))
    apply_optimizer_in_backward(optimizer, model.parameters(), {"lr": RATE})

    processes, sharder = dist.get_world_size(), EmbeddingCollectionSharder()
    planner = EmbeddingShardingPlanner(
        topology=TopologyFactory.create_topology(
            TrainerConfig(world_size=processes, local_world_size=processes),
            kernel_config=KernelConfig(compute_device="cpu"),
        ),
        constraints={"table": ParameterConstraints(sharding_types=["row_wise"])},
        storage_reservation=FixedPercentageStorageReservation(percentage=0.15),
    )
    plan = planner.collective_plan(model, [sharder], dist.group.WORLD)
    cpu = torch.device("cpu")
    model = DistributedModelParallel(model, device=cpu, plan=plan, sharders=[sharder])
    rows, first = shard(model)
    rows.copy_(weight[first : first + len(rows)])
    return model


def shard(model: DistributedModelParallel) -> tuple[torch.Tensor, int]:
    """This process's rows, and the id of the first."""
    (local,) = model.state_dict()["embeddings.table.weight"].local_shards()
    return local.tensor, local.metadata.shard_offsets[0]


def state_bytes(model: DistributedModelParallel) -> int:
    """Bytes of this process's part of the optimizer's state."""
    (state,) = model.fused_optimizer.state_dict()["state"].values()
    return sum(part.tensor.nbytes for tensor in state.values() for part in tensor.local_shards())


def loss(rows: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (rows - target).square().sum(dim=1).mean()


def adagrad_of_rows(table: nn.Embedding, squares: torch.Tensor) -> None:
    """RowWiseAdagrad by hand: for each row, the sum of its mean squared gradients."""
    squares += table.weight.grad.square().mean(dim=1)
    table.weight.data -= RATE * table.weight.grad / (squares.sqrt() + 1e-8)[:, None]


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    weight = torch.randn(V, D)
    ids = torch.randint(V, (STEPS, BATCH))
    target = torch.randn(BATCH, D)
    mine = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)

    for optimizer in (torch.optim.SGD, RowWiseAdagrad):
        split = sharded_table(weight, optimizer)
        whole = nn.Embedding.from_pretrained(weight.clone(), freeze=False)
        squares = torch.zeros(V)
        for batch in ids:
            asked = KeyedJaggedTensor(["word"], batch[mine], lengths=torch.ones(BATCH // 2).int())
            rows = split(asked).wait()["word"].values()
            torch.testing.assert_close(rows, whole(batch[mine]))
            loss(rows, target[mine]).backward()  # this updates the rows, too
            assert all(parameter.grad is None for parameter in split.parameters())

            whole.zero_grad()
            loss(whole(batch), target).backward()
            if optimizer is RowWiseAdagrad:
                adagrad_of_rows(whole, squares)
            else:
                whole.weight.data -= RATE * whole.weight.grad

        rows, first = shard(split)
        torch.testing.assert_close(rows, whole.weight.detach()[first : first + len(rows)])
        assert not torch.allclose(rows, weight[first : first + len(rows)])
        for turn in range(dist.get_world_size()):
            if turn == rank:
                print(
                    f"{optimizer.__name__}, rank {rank}: rows {first} to {first + len(rows) - 1}, "
                    f"{rows.nbytes:,} bytes, and {state_bytes(split):,} bytes of state; "
                    f"after {STEPS} steps equal to one process",
                    flush=True,
                )
            dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
