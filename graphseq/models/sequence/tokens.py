"""Checks of token numbers before they are embedded."""

import torch
from torch import Tensor

__all__: list[str] = []


def checked_tokens(ids: Tensor, vocab_size: int, name: str) -> Tensor:
    """Return token numbers after a check of their shape and, on the CPU, of their range.

    Args:
        ids: token numbers (B, T).
        vocab_size: number of tokens of the vocabulary.
        name: name of the argument, for messages.

    Raises:
        ValueError: if they are not integers (B, T), or one is outside the vocabulary.

    Example:
        >>> checked_tokens(torch.tensor([[0, 4]]), 5, "ids")
        tensor([[0, 4]])
    """
    if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} {ids.dtype} {tuple(ids.shape)}; token numbers must be integers (B, T)")
    # on a GPU the check would synchronise; there the kernel of the embedding reports numbers that are out of range
    if ids.device.type == "cpu" and ids.numel():
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"{name} from {low} to {high}; with vocab_size={vocab_size} token numbers must be in "
                f"0..{vocab_size - 1}"
            )
    return ids
