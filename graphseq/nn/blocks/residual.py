"""Residual connections with the norm before the layer, after the sum, or on both sides of the layer."""

import copy

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive

__all__ = ["PostNorm", "PreNorm", "SandwichNorm"]


class Residual(nn.Module):
    """Base class of residual paths: :meth:`enter` gives what the layer reads, :meth:`leave` adds what it returns.

    Args:
        dim: number D of features.
        norm: norm of D features; None for ``torch.nn.RMSNorm(dim, eps=1e-6)``.
        dropout: probability in [0, 1) of setting an output of the layer to zero.
    """

    def __init__(self, dim: int, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        positive(dim=dim)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        if norm is not None and not isinstance(norm, nn.Module):
            raise TypeError(f"norm is {norm!r}; give a module such as torch.nn.LayerNorm({dim})")
        sizes = getattr(norm, "normalized_shape", (dim,))
        if tuple(sizes) != (dim,):
            raise ValueError(f"norm has the shape {tuple(sizes)} and dim is {dim}; give a norm of {dim} features")
        self.dim = dim
        self.norm = nn.RMSNorm(dim, eps=1e-6) if norm is None else norm
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Reinitialise the norms."""
        for module in self.children():
            if callable(reset := getattr(module, "reset_parameters", None)):  # a norm of any library
                reset()

    def enter(self, x: Tensor) -> Tensor:
        """Return the input of the layer.

        Args:
            x: input of the part (B, T, D).
        """
        raise NotImplementedError(f"{type(self).__name__} must define enter")

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the output of the part.

        Args:
            x: input of the part (B, T, D).
            y: output of the layer (B, T, D).
        """
        raise NotImplementedError(f"{type(self).__name__} must define leave")


class PreNorm(Recorded, Residual):
    r"""Residual path with the norm before the layer.

    .. math:: y = x + \operatorname{dropout}\bigl(f(\operatorname{norm}(x))\bigr)

    Source: arXiv 2002.04745, figure 1 (b). Differs from it: any norm.

    Args:
        dim: number D of features.
        norm: norm of D features; None for ``torch.nn.RMSNorm(dim, eps=1e-6)``.
        dropout: probability in [0, 1) of setting an output of the layer to zero.

    Shape:
        x (B, T, D) -> (B, T, D)

    Raises:
        ValueError: if ``dim`` or ``dropout`` is outside its range, or the norm is one of another width.
        TypeError: if ``norm`` is not a module.

    Example:
        >>> import torch
        >>> path, layer = PreNorm(8), nn.Linear(8, 8)
        >>> x = torch.randn(2, 5, 8)
        >>> torch.equal(path.leave(x, layer(path.enter(x))), x + layer(path.norm(x)))
        True
    """

    def enter(self, x: Tensor) -> Tensor:
        """Return the normalised input."""
        return self.norm(x)

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.dropout(y)


class PostNorm(Recorded, Residual):
    r"""Residual path with the norm after the sum.

    .. math:: y = \operatorname{norm}\bigl(x + \operatorname{dropout}(f(x))\bigr)

    Source: arXiv 1706.03762, section 3.1. Differs from it: any norm.

    Args:
        dim: number D of features.
        norm: norm of D features; None for ``torch.nn.RMSNorm(dim, eps=1e-6)``.
        dropout: probability in [0, 1) of setting an output of the layer to zero.

    Shape:
        x (B, T, D) -> (B, T, D)

    Raises:
        ValueError: if ``dim`` or ``dropout`` is outside its range, or the norm is one of another width.
        TypeError: if ``norm`` is not a module.

    Example:
        >>> import torch
        >>> path, layer = PostNorm(8), nn.Linear(8, 8)
        >>> x = torch.randn(2, 5, 8)
        >>> torch.equal(path.leave(x, layer(path.enter(x))), path.norm(x + layer(x)))
        True
    """

    def enter(self, x: Tensor) -> Tensor:
        """Return the input as it is."""
        return x

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the normalised sum."""
        return self.norm(x + self.dropout(y))


class SandwichNorm(Recorded, Residual):
    r"""Residual path with norms before and after the layer.

    .. math:: y = x + \operatorname{dropout}\bigl(\operatorname{norm}_2(f(\operatorname{norm}_1(x)))\bigr)

    Source: arXiv 2105.13290, section 2.4. Differs from it: any norm.

    Args:
        dim: number D of features.
        norm: norm of D features, before the layer and, as a copy, after it; None for
            ``torch.nn.RMSNorm(dim, eps=1e-6)``.
        dropout: probability in [0, 1) of setting an output of the layer to zero.

    Shape:
        x (B, T, D) -> (B, T, D)

    Raises:
        ValueError: if ``dim`` or ``dropout`` is outside its range, or the norm is one of another width.
        TypeError: if ``norm`` is not a module.

    Example:
        >>> import torch
        >>> path, x = SandwichNorm(8), torch.randn(2, 5, 8)
        >>> path.leave(x, path.enter(x)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__(dim, norm, dropout)
        self.inner_norm = copy.deepcopy(self.norm)

    def enter(self, x: Tensor) -> Tensor:
        """Return the normalised input."""
        return self.norm(x)

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum with the normalised output."""
        return x + self.dropout(self.inner_norm(y))
