"""Assignment of rows to segments: checks of ``index`` and ``ptr``, and conversion between them."""

import torch
from torch import Tensor

# boundaries up to which a list of numbers is checked faster than tensors, with a call for each operation
_SHORT = 256


def row_segments(index: Tensor | None, ptr: Tensor | None, num_values: int) -> Tensor:
    """Return the segment of each row, int64 ``(N,)``, from ``index`` or else from ``ptr``; no device sync.

    Args:
        index: segment of each row; None if ``ptr`` is given.
        ptr: first row of each segment of sorted rows and, last, the number of rows; int64 ``(G+1,)``, or None.
        num_values: number of rows N.

    Raises:
        ValueError: if both are None.

    Example:
        >>> row_segments(None, torch.tensor([0, 2, 2, 3]), 3)
        tensor([0, 0, 2])
    """
    if index is not None:
        return index
    if ptr is None:
        raise ValueError("neither index nor ptr given; give one of them")
    segments = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(segments, ptr.diff(), output_size=num_values)


def count_rows(index: Tensor | None, ptr: Tensor | None, num_segments: int) -> Tensor:
    """Return the number of rows of each segment, int64 ``(G,)``, without a device sync.

    Args:
        index: segment of each row; None if ``ptr`` is given.
        ptr: boundaries of sorted segments, or None.
        num_segments: number of segments G.

    Raises:
        ValueError: if both are None.

    Example:
        >>> count_rows(torch.tensor([2, 0, 2]), None, 3)
        tensor([1, 0, 2])
    """
    if ptr is not None:
        return ptr.diff()
    if index is None:
        raise ValueError("neither index nor ptr given; give one of them")
    # integers, so the order of atomic additions does not matter; bincount would wait for the device
    return index.new_zeros(num_segments).scatter_add_(0, index, index.new_ones(1).expand_as(index))


def _require(condition: Tensor, message: str) -> None:
    """Fail if a condition is false: at once on the CPU, by a device-side assertion elsewhere (no sync)."""
    torch._assert_async(condition, message)


def _check_values(values: Tensor, floating: bool) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"values is a {type(values).__name__}; a tensor of shape (N, *) is needed")
    if values.dim() == 0:
        raise ValueError("values is a scalar; it needs a first dimension, one row per index: shape (N, *)")
    if values.dtype == torch.bool or values.is_complex() or (floating and not values.is_floating_point()):
        accepted = "a floating type" if floating else "a floating or an integer type"
        raise TypeError(f"values is {values.dtype}; {accepted} is needed: convert it, such as with .float()")


def _check_layout(name: str, layout: Tensor, values: Tensor) -> None:
    if not isinstance(layout, Tensor) or layout.dtype != torch.int64:
        given = layout.dtype if isinstance(layout, Tensor) else type(layout).__name__
        raise TypeError(f"{name} is {given}; an int64 tensor is needed: convert it with .long()")
    if layout.device != values.device:
        raise ValueError(f"{name} is on {layout.device}, values on {values.device}; move them to one device")


def _check_ptr(ptr: Tensor, num_values: int) -> None:
    if ptr.dim() != 1 or ptr.numel() == 0:
        raise ValueError(f"ptr has shape {tuple(ptr.shape)}; (G+1,) is needed, [0] if there is no segment")
    if ptr.is_cpu and not torch.compiler.is_compiling():
        if ptr.numel() <= _SHORT:
            bounds = ptr.tolist()
            first, last, ascends = bounds[0], bounds[-1], bounds == sorted(bounds)
        else:
            first, last, ascends = int(ptr[0]), int(ptr[-1]), not bool((ptr[1:] < ptr[:-1]).any())
        if first != 0 or last != num_values or not ascends:
            raise ValueError(
                f"ptr runs from {first} to {last} over {num_values} rows; it must start with 0, never decrease "
                "and end with the number of rows"
            )
    elif ptr.device.type in ("cpu", "cuda"):
        right = (ptr[0] == 0) & (ptr[-1] == num_values) & (ptr[1:] >= ptr[:-1]).all()
        _require(right, "ptr must start with 0, never decrease and end with the number of rows")


def _check_range(index: Tensor, num_segments: int) -> None:
    if index.numel() == 0:
        return
    if index.is_cpu and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in torch.aminmax(index))
        if low < 0 or high >= num_segments:
            raise ValueError(
                f"index holds {low if low < 0 else high}; with {num_segments} segments it must lie in "
                f"0..{num_segments - 1}: give a larger num_segments or correct the index"
            )
    elif index.device.type in ("cpu", "cuda"):
        _require(((index >= 0) & (index < num_segments)).all(), "index must lie in 0..num_segments-1")


def check_segments(
    values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int | None, *, floating: bool = False
) -> int:
    """Check the arguments of a segment function and return the number of segments.

    The contents of ``index`` and ``ptr`` are checked on the host for CPU tensors. On CUDA, and inside
    ``torch.compile``, an assertion on the device does it without synchronisation: a wrong index is reported at the
    next synchronisation. Other devices check shapes and types only.

    Args:
        values: rows to be reduced.
        index: segment of each row; None if ``ptr`` is given.
        ptr: boundaries of sorted segments, or None.
        num_segments: number of segments, or None to derive it: from the length of ``ptr``, or from the largest
            index, which synchronises on an accelerator.
        floating: whether integers are refused.

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if a shape, a device or a content does not fit, or not exactly one of index and ptr is given.

    Example:
        >>> check_segments(torch.ones(3, 2), torch.tensor([0, 4, 1]), None, None)
        5
    """
    _check_values(values, floating)
    if index is not None and ptr is not None:
        raise ValueError("both index and ptr given; give ptr alone for rows sorted by segment, else index alone")
    if num_segments is not None and num_segments < 0:
        raise ValueError(f"num_segments is {num_segments}; it must be at least 0")
    if ptr is not None:
        _check_layout("ptr", ptr, values)
        _check_ptr(ptr, values.shape[0])
        if num_segments is not None and num_segments != ptr.numel() - 1:
            raise ValueError(f"num_segments is {num_segments}, but ptr describes {ptr.numel() - 1}; leave it out")
        return ptr.numel() - 1
    if index is None:
        raise ValueError("neither index nor ptr given; give ptr for rows sorted by segment, else index")
    _check_layout("index", index, values)
    if index.shape != values.shape[:1]:
        raise ValueError(
            f"index has shape {tuple(index.shape)}, values {tuple(values.shape)}; one index per row is needed: "
            f"({values.shape[0]},)"
        )
    if num_segments is None:
        num_segments = int(index.max()) + 1 if index.numel() else 0
    _check_range(index, num_segments)
    return num_segments
