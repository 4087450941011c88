"""Tables that stay in host memory: a drop-in for nn.Embedding, a prefetcher, a cache of hot rows.

    table = OffloadedEmbedding(20_000_000, 128, device="cuda")
    optimizer = torch.optim.Adagrad([table.weight], lr=0.05)
    for batch in Prefetcher(loader, table, ids=lambda batch: batch["ids"], optimizer=optimizer):
        ...

The words used here: the *host* is where the CPU's memory is; the *device* is where the rows are
wanted, an accelerator as a rule. `crossing` counts what goes from one to the other; `table` is the
drop-in, `prefetch` fetches the next batch's rows beside the running one, `cached` keeps hot rows on
the device, in a `cache`. The package needs PyTorch alone and may be copied into other projects.

What works with a table on the host (each entry is run by a test):

| with | `OffloadedEmbedding` | `CachedEmbedding` |
|:--|:--|:--|
| autocast, checkpointing | as nn.Embedding | as nn.Embedding |
| GradScaler | as nn.Embedding | `scaler.step(table)`, then `table.zero_grad()` |
| accumulation, a skipped batch | as nn.Embedding | `table.zero_grad()` forgets |
| SGD (momentum too), Adagrad, SparseAdam | as nn.Embedding | SGD, Adagrad: its own `step()` |
| Adam, decay, fused | `sparse=False` | no |
| clipping by clip_grad_norm_ | `sparse=False` | over `table.param_groups[0]["params"]` |
| a schedule of the rate | as nn.Embedding | `table.lr = schedule.get_last_lr()[0]` |
| a penalty on looked-up rows | as nn.Embedding | as nn.Embedding |
| a penalty on the weight, tied weights | as nn.Embedding | refused by `step()` |
| hooks on the weight | as nn.Embedding | refused |
| gradients of gradients | as nn.Embedding | refused |
| functional_call, func.grad, hessian | as nn.Embedding | refused |
| parametrize, weight_norm, prune | as nn.Embedding, without a Prefetcher | refused |
| forward-mode derivatives | refused | refused |
| torch.vmap over ids, nested ids | refused | refused |
| torch.compile | look-ups are left out; no `fullgraph` | look-ups are left out; no `fullgraph` |
| torch.export | as nn.Embedding | after `table.flush()` |
| torch.fx | as a leaf of the tracer | as a leaf of the tracer |
| torch.jit.script | refused | refused |
| several tables | one Prefetcher over a list or dict | one Prefetcher over a list or dict |
| DDP | in a DDP of its own, over gloo | no: one process |
| fully_shard | ignored by it, in a DDP of its own | no: one process |
| AveragedModel, `parameters()` | as nn.Embedding | after `table.flush()` |
| copies, pickle, state_dict | as nn.Embedding | as nn.Embedding |
| DataLoader workers, share_memory | as nn.Embedding | as nn.Embedding |
| look-ups in several threads | as nn.Embedding | as nn.Embedding |

"Refused" raises an error; "no" raises none, and the result is wrong.
"""

from .cached import CachedEmbedding
from .crossing import Meter, to_device, to_host
from .prefetch import Prefetcher
from .table import OffloadedEmbedding

__all__ = [
    "CachedEmbedding",
    "Meter",
    "OffloadedEmbedding",
    "Prefetcher",
    "to_device",
    "to_host",
]
