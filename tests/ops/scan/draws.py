"""Random recurrences, for the tests of scans."""

import torch


def draw(rows=2, steps=7, dim=3, block=False, seed=0, dtype=torch.float64):
    """Factors in [-1.2, 1.2], a fifth of them zero."""
    generator = torch.Generator().manual_seed(seed)
    pair = (2,) if block else ()
    a = torch.empty(rows, steps, *pair, *pair, dim, dtype=torch.float64).uniform_(-1.2, 1.2, generator=generator)
    a = a.masked_fill(torch.rand(a.shape, generator=generator) < 0.2, 0.0)
    b = torch.randn(rows, steps, *pair, dim, generator=generator, dtype=torch.float64)
    initial = torch.randn(rows, *pair, dim, generator=generator, dtype=torch.float64)
    return [part.to(dtype).requires_grad_() for part in (a, b, initial)]
