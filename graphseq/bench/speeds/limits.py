"""Limits of the machine with which a timed call is compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphseq.bench.experiment import Row
from graphseq.bench.speeds.timing import copying, multiplying

__all__ = ["Bytes", "Operations"]


@dataclass(frozen=True)
class Bytes:
    """A limit: the bytes that must be read and written, at the bandwidth of a plain copy of as many bytes.

    Args:
        count: bytes read plus bytes written by one call, at least 2.

    Example:
        >>> Bytes(2_000_000).describe()
        {'bytes': 2000000}
    """

    count: int

    def describe(self) -> Row:
        """Return the limit as columns of a row."""
        return {"bytes": self.count}

    def contender(self, device: str) -> tuple[Callable[[], Any], float]:
        """Return a call that copies as many bytes, and the factor by which its time is multiplied to give the limit.

        Args:
            device: device of the copied tensor, ``"cpu"`` or ``"cuda"``.
        """
        return copying(max(1, self.count // 2), device), 1.0


@dataclass(frozen=True)
class Operations:
    """A limit: floating-point operations at the rate of a large matrix product in float32.

    Args:
        count: additions and multiplications of one call, at least 1.

    Example:
        >>> Operations(1_000_000).describe()
        {'operations': 1000000}
    """

    count: float

    def describe(self) -> Row:
        """Return the limit as columns of a row."""
        return {"operations": self.count}

    def contender(self, device: str) -> tuple[Callable[[], Any], float]:
        """Return a call that multiplies matrices, and the factor by which its time is multiplied to give the limit.

        Args:
            device: device of the matrices, ``"cpu"`` or ``"cuda"``.
        """
        call, operations = multiplying(device)
        return call, self.count / operations
