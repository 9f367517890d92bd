"""Matrix products of queries and rows, by the fastest library that torch brings."""

from __future__ import annotations

import torch
from torch.nn import functional

from pyxai._precision import full_precision


@full_precision()
def products(queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """All dot products, `[q, n]` float32.

    On the CPU by oneDNN, which takes the widest instructions of any processor. `torch.mm` takes
    MKL, which leaves AVX-512 unused on processors of other makers: half the speed.

    Args:
        queries: `[q, F]` float32.
        rows: `[n, F]` float32, of the same device. Some thousands at most on the CPU, so that they
            stay in the cache while the queries pass.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if queries.device.type != "cpu" or not len(queries) or not available:
        return (queries @ rows.T).detach()
    with torch.no_grad():
        found: torch.Tensor = functional.linear(queries.to_mkldnn(), rows).to_dense()
    return found
