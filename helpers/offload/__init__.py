"""Tables that stay in host memory: a drop-in for nn.Embedding, a prefetcher, a cache of hot rows.

    table = OffloadedEmbedding(20_000_000, 128, device="cuda")
    optimizer = torch.optim.Adagrad([table.weight], lr=0.05)
    for batch in Prefetcher(loader, table, ids=lambda batch: batch["ids"], optimizer=optimizer):
        ...

The words used here: the *host* is where the CPU's memory is; the *device* is where the rows are
wanted, an accelerator as a rule. `crossing` counts what goes from one to the other; `table` is the
drop-in, `prefetch` fetches the next batch's rows beside the running one, `cache` keeps hot rows on
the device. The package needs PyTorch alone and may be copied into other projects.
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
