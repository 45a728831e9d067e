"""Index tables that follow a module from device to device but are not in its state, since they follow from it."""

from typing import Any

from torch import nn

__all__: list[str] = []


class Plan(nn.Module):
    """Named tuple of tensors as buffers; calling it returns the tuple.

    Args:
        plan: a named tuple of tensors.
    """

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.kind = type(plan)
        for name, value in plan._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def set(self, plan: Any) -> None:
        """Take the values of another plan.

        Args:
            plan: named tuple of the same type.
        """
        for name, value in plan._asdict().items():
            mine = getattr(self, name)
            if value.shape == mine.shape:
                mine.copy_(value)  # in place, where compiled graphs look for it
            else:
                setattr(self, name, value)

    def forward(self) -> Any:
        """Return the named tuple."""
        return self.kind(*(getattr(self, name) for name in self.kind._fields))
