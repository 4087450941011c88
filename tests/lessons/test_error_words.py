"""Headings quote errors as people meet them: this PyTorch still says those words.

Where the answer's cell shows the error, nbval holds it. The others are provoked here, except for
those that want a GPU or another library.
"""

import re
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from tools.lessons import asked_paths, read, tags

NOT_HERE = {"device-side-assert", "same-device", "why-adam-needs-six-tables"}  # a GPU's
# Of safetensors, of onnx, and of FBGEMM.
NOT_HERE |= {"tensors-share-memory", "onnx-and-embedding-bag", "offsets-that-fall"}


@cache
def questions() -> list[tuple[str, str, str]]:
    """Each heading that quotes an error: its cell's id, itself, what its answer's cell shows."""
    found = []
    for path in asked_paths():
        cells = read(path).cells
        for cell, after in zip(cells, [*cells[1:], {}], strict=True):
            if "error" in tags(cell):
                outputs = after.get("outputs", [])
                shown = " ".join(str(out.get("text") or out.get("data")) for out in outputs)
                found.append((cell.id, cell.source.splitlines()[0], shown))
    return found


def unsaid(heading: str, said: str) -> list[str]:
    """The quoted words that `said` lacks; quotation marks and numbers in brackets do not count."""

    def bare(words: str) -> str:
        return " ".join(re.sub(r" \(\d+\)|[\"\\]", "", words).split())

    # What ends in () is where the error comes from, not what it says.
    quoted = [q for q in re.findall(r"`([^`]+)`", heading) if not q.endswith("()")]
    parts = [bare(part) for quote in quoted for part in quote.split("...")]
    assert parts, heading
    return [part for part in parts if part not in bare(said)]


IDS = torch.tensor([1, 2])


def sparse(optimizer: Callable[..., optim.Optimizer] = optim.SGD, **more: float) -> None:
    """A step of a table with a sparse gradient."""
    table = nn.Embedding(6, 4, sparse=True)
    table(IDS).sum().backward()
    optimizer(table.parameters(), lr=0.1, **more).step()


def clipped() -> None:
    table = nn.Embedding(6, 4, sparse=True)
    table(IDS).sum().backward()
    nn.utils.clip_grad_norm_(table.parameters(), 1.0)


def dense_for_sparse_adam() -> None:
    table = nn.Embedding(6, 4)
    table(IDS).sum().backward()
    optim.SparseAdam(table.parameters()).step()


def penalty_of_max_norm() -> None:
    table = nn.Embedding(6, 4, max_norm=0.1)
    penalty = table.weight.square().sum()
    (table(IDS).sum() + penalty).backward()


def two_groups() -> None:
    table, head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
    head.weight = table.weight
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Sequential(table, head)
        for module in (table, head, model):
            fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        model(IDS)
    finally:
        dist.destroy_process_group()


def bag_under_vmap() -> Tensor:
    def one(weight: Tensor) -> Tensor:
        return F.embedding_bag(IDS[None], weight)

    with warnings.catch_warnings(action="error"):
        return torch.vmap(one)(torch.ones(3, 6, 4))


def loaded(state: dict[str, Tensor], **parts: nn.Module) -> None:
    nn.ModuleDict(parts).load_state_dict(state)


def exported() -> Tensor:
    return torch.export.export(nn.Embedding(6, 4), (IDS,)).module()(torch.tensor([1, 2, 3]))


def bag(ids: Tensor, mode: str = "mean", sparse: bool = False, **more: Tensor) -> Tensor:
    return nn.EmbeddingBag(6, 4, mode=mode, sparse=sparse)(ids, **more)


ROWS = nn.Embedding(6, 4)
PROVOKED = {
    "conv1d-channels": lambda: nn.Conv1d(4, 2, 1)(torch.ones(2, 5, 4)),
    "index-out-of-range": lambda: ROWS(torch.tensor([6])),
    "expected-long-or-int": lambda: ROWS(IDS.float()),
    "must-be-tensor": lambda: ROWS([1, 2]),
    "max-norm-in-place": penalty_of_max_norm,
    "element-0-does-not-require-grad": lambda: F.embedding(IDS, torch.ones(6, 4)).sum().backward(),
    "frozen-and-checkpointed": lambda: checkpoint(
        nn.Linear(4, 2), torch.ones(2, 4), use_reentrant=True
    ).sum().backward(),
    "which-optimizers-take-sparse": lambda: sparse(optim.Adam),
    "sparse-table-and-other-layers": dense_for_sparse_adam,
    "sparse-and-weight-decay": lambda: sparse(weight_decay=0.1),
    "clip-sparse-gradients": clipped,
    "freq-and-sparse": lambda: F.embedding(
        IDS, ROWS.weight, scale_grad_by_freq=True, sparse=True
    ).sum().backward(),
    "shared-with-another-fsdp-group": two_groups,
    "vmap-over-tables": bag_under_vmap,
    "unexpected-position-ids": lambda: loaded({"embeddings.position_ids": IDS}),
    "missing-key-of-the-head": lambda: loaded({}, head=nn.Linear(4, 6, bias=False)),
    "export-any-batch": exported,
    "max-mode-and-sparse": lambda: bag(IDS[None], "max", sparse=True),
    "weighted-bag": lambda: bag(IDS[None], per_sample_weights=torch.ones(1, 2)),
}


def test_words_that_no_cell_shows_are_provoked_or_belong_elsewhere() -> None:
    hidden = {name for name, heading, shown in questions() if unsaid(heading, shown)}
    assert hidden == PROVOKED.keys() | NOT_HERE
    assert len(questions()) > 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROVOKED)
def test_a_provoked_error_says_the_words_of_its_heading(name: str) -> None:
    (heading,) = [heading for where, heading, _ in questions() if where == name]
    with pytest.raises(Exception) as caught:
        PROVOKED[name]()
    said = f"{caught.value} {caught.value.__cause__}"
    assert unsaid(heading, said) == [], said
