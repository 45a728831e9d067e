"""Co-occurrence of variables: the directed graph from which ReGENN's graph evolution starts."""

from torch import Tensor

__all__ = ["co_occurrence"]


def co_occurrence(x: Tensor, present: Tensor | None = None) -> Tensor:
    r"""Return how much each variable carries while another is present, as a directed weighted graph.

    .. math:: A_{bc} = \sum_{s,t} x_{stb}\, p_{stc} \quad (b \ne c), \qquad
        A_{bb} = \max\Bigl(0, \sum_{s,t} x_{stb}\, p_{stb} - \sum_{c \ne b} A_{bc}\Bigr)

    Source: arXiv 2008.12833 and its official code; the formula is taken from the behaviour of that code.
    Memory: one pass over the values in float64; no more than a copy of them.

    Args:
        x: values (..., V), at least 0 for the reading as an amount; any other sign is computed alike.
        present: where a variable counts as present, bool of the same shape; None for where it is above 0.

    Returns:
        graph (V, V) of the type of ``x``: row b is the source.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> co_occurrence(torch.tensor([[1.0, 0.0], [2.0, 3.0]]))
        tensor([[1., 2.],
                [3., 0.]])
    """
    present = x > 0 if present is None else present
    if present.shape != x.shape:
        raise ValueError(f"present is {tuple(present.shape)}, x {tuple(x.shape)}; they must agree")
    flat = x.reshape(-1, x.shape[-1]).double()
    counts = flat.T @ present.reshape(flat.shape).double()  # (V, V)
    diagonal = counts.diagonal()
    alone = (2 * diagonal - counts.sum(1)).clamp(min=0)
    return (counts - diagonal.diag() + alone.diag()).to(x.dtype)
