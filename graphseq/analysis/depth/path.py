"""Paths through the layers of a network, and the actions that change them: skip a block, repeat a block."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Self

__all__ = ["LayerPath", "PathAction", "RepeatLayers", "SkipLayers"]


class LayerPath(tuple[int, ...]):
    r"""Indices of the layers that are run, in order: a layer may be left out, or occur several times.

    .. math:: P = (i_1, \dots, i_K), \qquad h_k = L_{i_k}(h_{k-1}), \qquad P_0 = (0, \dots, N - 1)

    with :math:`P_0`, :meth:`original`, the network as it is. A path is a tuple, equal to and hashed as one.

    Source: arXiv 2507.07996, section 3. Differs from it: layers are counted from 0.

    Args:
        layers: numbers of the layers, at least one, each at least 0.

    Raises:
        ValueError: if there is no layer, or a number is below 0.
        TypeError: if a number is not whole.

    Example:
        >>> path = LayerPath.original(6).skip(4, 1).repeat(0, 2, 1)
        >>> path, str(path), path.length, path.unique
        (LayerPath((0, 1, 0, 1, 2, 3, 5)), '0-1,0-3,5', 7, 5)
    """

    __slots__ = ()

    def __new__(cls, layers: Iterable[int]) -> Self:
        """Check the numbers."""
        if isinstance(layers, str):
            raise TypeError(f"layers is {layers!r}; give whole numbers of layers, or LayerPath.parse({layers!r})")
        given = tuple(layers)
        whole = (int(each) if isinstance(each, Integral) and not isinstance(each, bool) else each for each in given)
        made = super().__new__(cls, whole)
        if not made:
            raise ValueError("layers is empty; a path runs at least one layer")
        for number in made:
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"layers holds {number!r}; give whole numbers of layers")
            if number < 0:
                raise ValueError(f"layers holds {number}; layers are counted from 0")
        return made

    @classmethod
    def original(cls, num_layers: int) -> Self:
        """Return the path that runs each layer once, in order.

        Args:
            num_layers: number N of layers, at least 1.
        """
        return cls(range(num_layers))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the path that :meth:`__str__` wrote.

        Args:
            text: numbers and ascending ranges, separated by commas, such as ``0-3,3,5``.

        Raises:
            ValueError: if the text is not of this form.

        Example:
            >>> LayerPath.parse("0-3,3,5")
            LayerPath((0, 1, 2, 3, 3, 5))
        """
        layers: list[int] = []
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
                raise ValueError(f"text is {text!r}; give numbers and ascending ranges such as '0-3,3,5'")
            layers.extend(range(int(first), int(last or first) + 1))
        return cls(layers)

    def __str__(self) -> str:
        """Return the numbers as comma-separated runs."""
        runs: list[list[int]] = []
        for number in self:
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"LayerPath({tuple(self)})"

    @property
    def length(self) -> int:
        """Number of layers that are run; a layer that occurs twice counts twice."""
        return len(self)

    @property
    def unique(self) -> int:
        """Number of different layers."""
        return len(set(self))

    def skip(self, start: int, size: int) -> "LayerPath":
        """Return the path without a block of consecutive places.

        Args:
            start: first place of the block, from 0.
            size: number of places, at least 1.

        Raises:
            ValueError: if the block is not inside the path, or nothing would be left.
        """
        self._check_block(start, size)
        if size == len(self):
            raise ValueError(f"size is {size}, the whole path; a path runs at least one layer")
        return _unchecked(self[:start] + self[start + size :])

    def repeat(self, start: int, size: int, count: int) -> "LayerPath":
        """Return the path with further copies of a block of consecutive places right after it.

        Args:
            start: first place of the block, from 0.
            size: number of places, at least 1.
            count: number of copies to insert, at least 1.

        Raises:
            ValueError: if the block is not inside the path, or ``count`` is below 1.
        """
        self._check_block(start, size)
        if count < 1:
            raise ValueError(f"count is {count}; insert at least one copy")
        stop = start + size
        return _unchecked(self[:stop] + self[start:stop] * count + self[stop:])

    def _check_block(self, start: int, size: int) -> None:
        if size < 1 or start < 0 or start + size > len(self):
            raise ValueError(f"start is {start} and size {size}; the block must lie inside the {len(self)} places")


PathAction = Callable[[LayerPath], list[LayerPath]]
"""Function from a path to the paths that one action makes of it."""


class SkipLayers:
    """Action that removes a block of consecutive layers.

    Source: arXiv 2507.07996, section 3.

    Args:
        sizes: numbers of layers that are removed at once, each at least 1.

    Raises:
        ValueError: if there is no size, or one is below 1.

    Example:
        >>> [str(path) for path in SkipLayers([1, 2])(LayerPath.original(3))]
        ['1-2', '0,2', '0-1', '2', '0']
    """

    def __init__(self, sizes: Sequence[int] = (1, 2, 3, 4)) -> None:
        self.sizes = _counts(sizes, "sizes")

    def __call__(self, path: LayerPath) -> list[LayerPath]:
        """Return the paths that keep at least one layer, by size and place."""
        return [
            path.skip(start, size)
            for size in self.sizes
            if size < len(path)
            for start in range(len(path) - size + 1)
        ]  # fmt: skip


class RepeatLayers:
    """Action that inserts copies of a block of consecutive layers right after it.

    Source: arXiv 2507.07996, section 3.

    Args:
        sizes: numbers of layers that are repeated at once, each at least 1.
        counts: numbers of copies that are inserted, each at least 1; 0 would change nothing.

    Raises:
        ValueError: if there is no size or count, or one is below 1.

    Example:
        >>> [str(path) for path in RepeatLayers([2], [1, 2])(LayerPath.original(2))]
        ['0-1,0-1', '0-1,0-1,0-1']
    """

    def __init__(self, sizes: Sequence[int] = (1, 2, 3, 4), counts: Sequence[int] = (1, 2, 3, 4)) -> None:
        self.sizes, self.counts = _counts(sizes, "sizes"), _counts(counts, "counts")

    def __call__(self, path: LayerPath) -> list[LayerPath]:
        """Return the paths by size, number of copies and place."""
        return [
            path.repeat(start, size, count)
            for size in self.sizes
            for count in self.counts
            for start in range(len(path) - size + 1)
        ]


def _unchecked(layers: tuple[int, ...]) -> LayerPath:
    """Return the path of numbers that another path holds; a search makes tens of thousands of them."""
    return tuple.__new__(LayerPath, layers)


def _counts(values: Sequence[int], name: str) -> tuple[int, ...]:
    if not values or min(values) < 1:
        raise ValueError(f"{name} is {list(values)}; give numbers of at least 1")
    return tuple(values)
