"""State whose size depends on the data: loading a checkpoint first allocates the sizes that were saved."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Elastic", "adopt_sizes"]


class Elastic(nn.Module):
    """Module with parameters or buffers whose size depends on the data; loading first allocates the saved sizes.

    ``torch`` copies a saved tensor into the existing one, which must have the same size. Before it does, this module
    allocates the tensors named in ``elastic`` with the saved sizes. A subclass that allocates in other ways
    (several modules at once, only growing) overrides :meth:`make_room`.

    A task calls :func:`adopt_sizes` before it compares a checkpoint with the network, so that sizes that
    depend on the data are not reported as a mismatch.

    Example:
        >>> class Bag(Elastic):
        ...     elastic = ("items",)
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_buffer("items", torch.zeros(0))
        >>> bag = Bag()
        >>> bag.load_state_dict({"items": torch.ones(2)})
        <All keys matched successfully>
        >>> bag.items
        tensor([1., 1.])
    """

    elastic: ClassVar[tuple[str, ...]] = ()

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate tensors with the sizes of a saved state; their values are loaded afterwards.

        Args:
            saved: tensors of this module and those inside it, by their names in its ``state_dict``.
        """
        for name in self.elastic:
            mine = getattr(self, name)
            # what inference mode made, as a test by Lightning does, cannot be written to outside of it
            if name not in saved or (saved[name].shape == mine.shape and not mine.is_inference()):
                continue
            room = torch.zeros(saved[name].shape, dtype=saved[name].dtype, device=mine.device)
            setattr(self, name, nn.Parameter(room, mine.requires_grad) if isinstance(mine, nn.Parameter) else room)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.make_room(_inside(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)


def adopt_sizes(module: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Allocate all elastic parts of a module with the sizes of a saved state, without loading its values.

    Args:
        module: any module.
        state_dict: saved state dictionary of the module.

    Example:
        >>> adopt_sizes(nn.Linear(2, 1), {})
    """
    for name, part in module.named_modules():
        if isinstance(part, Elastic):
            part.make_room(_inside(state_dict, f"{name}." if name else ""))


def _inside(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }
