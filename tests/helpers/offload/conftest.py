"""Every test of tables on the host runs on one thread, and with sparse tensors checked."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Adagrad makes sparse tensors, and PyTorch warns if it is not told whether to check them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.sparse.check_sparse_tensor_invariants(True):
        yield
    torch.set_num_threads(threads)
