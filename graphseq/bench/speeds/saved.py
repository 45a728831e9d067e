"""Memory that a forward pass keeps for the backward pass."""

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["saved_bytes"]


def saved_bytes(forward: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the tensors that autograd keeps of a forward pass.

    A storage that several operations keep, or keep a view of, counts once and as a whole.

    Args:
        forward: function that returns what is differentiated, such as a loss.
        held: tensors that are there anyway and do not count, such as parameters, buffers and the batch.

    Example:
        >>> import torch
        >>> layer, x = torch.nn.Linear(3, 2), torch.ones(5, 3)
        >>> saved_bytes(lambda: layer(x).tanh(), [*layer.parameters(), x])  # the output of tanh
        40
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in held}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that no other tensor gets its address
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return size
