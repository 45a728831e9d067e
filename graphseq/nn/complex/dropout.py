"""Dropout of complex numbers."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.complex.activations import check_complex

__all__ = ["ComplexDropout"]


class ComplexDropout(Recorded, nn.Module):
    r"""Set complex entries to zero at random, real and imaginary part together, and scale the others.

    .. math:: y = \frac{b}{1 - p}\, x, \qquad b \sim \mathrm{Bernoulli}(1 - p)

    Dropping the two parts independently would change the phase of the remaining entries.

    Args:
        p: probability of setting an entry to zero in training, in [0, 1).

    Shape:
        x (*) complex -> (*) complex

    Raises:
        ValueError: if ``p`` is out of range.
        TypeError: in ``forward``, if the input is real.

    Example:
        >>> layer = ComplexDropout(0.5)
        >>> sorted(set(layer(torch.full((100,), 1 + 2j)).tolist()), key=abs)
        [0j, (2+4j)]
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; give a probability in [0, 1)")
        self.p = p

    def extra_repr(self) -> str:
        """Return the probability for ``repr``."""
        return f"p={self.p:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with entries set to zero in training, unchanged in evaluation.

        Args:
            x: complex input.
        """
        check_complex(x, self)
        if not self.training or self.p == 0:
            return x
        return x * nn.functional.dropout(torch.ones_like(x.real), self.p)
