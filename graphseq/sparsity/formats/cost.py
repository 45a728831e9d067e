"""Time that a step takes in each format, by a model whose constants were measured, and the choice that follows."""

from typing import Literal

__all__ = ["choose_format", "format_time"]

Format = Literal["masked", "packed", "blockdiag", "csr"]

# Forward and backward on one thread of a Xeon with AVX-512, torch 2.13, float32, widths 64 to 2048, batches 64 to 256.
_START = {"masked": 80.0, "packed": 200.0, "blockdiag": 150.0, "csr": 200.0}  # microseconds a layer
_PRODUCT = {"masked": 0.05, "packed": 0.06, "blockdiag": 0.07, "csr": 0.3}  # nanoseconds a weight and sample
_MASKING = 2.5  # nanoseconds a place of the dense weight, for the products with the mask
_GATHER = 2.4  # nanoseconds a gathered number


def format_time(
    format: Format, in_features: int, out_features: int, density: float, groups: int = 1, batch_size: int = 256
) -> float:
    r"""Return the time that a step of a sparse linear layer is expected to take on the CPU, in microseconds.

    A start, plus a time for each weight and sample, plus what the format moves: the dense weight through its mask, or
    the inputs that are gathered for each group. The constants are those of one machine; they are not measured at run
    time, so that the choice does not differ between machines that share a checkpoint.

    Args:
        format: ``masked``, ``packed``, ``blockdiag`` or ``csr``.
        in_features: number of inputs.
        out_features: number of outputs.
        density: share of the weights that exist, in [0, 1].
        groups: number of groups, each of which gathers its inputs in the packed format.
        batch_size: number of samples.

    Raises:
        ValueError: if ``format`` is unknown.

    Example:
        >>> format_time("packed", 2048, 2048, 0.25, 8) < format_time("masked", 2048, 2048, 0.25)
        True
    """
    if format not in _START:
        raise ValueError(f"format is {format!r}; it must be one of {', '.join(_START)}")
    places = in_features * out_features
    share = 1.0 if format == "masked" else density
    moved = {"masked": _MASKING * places, "packed": _GATHER * density * in_features * groups * batch_size}
    return _START[format] + 1e-3 * (_PRODUCT[format] * share * places * batch_size + moved.get(format, 0.0))


def choose_format(
    granularity: Literal["edge", "column", "block"],
    in_features: int,
    out_features: int,
    p_intra: float,
    p_inter: float,
    groups: int,
    batch_size: int = 256,
) -> Literal["masked", "packed", "blockdiag+csr"]:
    """Return the fastest format in which a layer between groups can be written, by :func:`format_time`.

    Args:
        granularity: what is present as a whole: ``column`` and ``block`` can be packed; ``edge`` can be written as
            dense blocks within groups and CSR between them if ``p_intra`` is 1.
        in_features: number of inputs.
        out_features: number of outputs.
        p_intra: density within a group.
        p_inter: density between groups.
        groups: number of groups G.
        batch_size: number of samples.

    Example:
        >>> choose_format("column", 1024, 1024, 1.0, 0.15, 8), choose_format("column", 64, 64, 1.0, 0.15, 8)
        ('packed', 'masked')
    """
    sizes = {"in_features": in_features, "out_features": out_features, "batch_size": batch_size}
    masked = format_time("masked", density=1.0, **sizes)
    within, between = p_intra / groups, (1 - 1 / groups) * p_inter
    if granularity != "edge":
        packed = format_time("packed", density=within + between, groups=groups, **sizes)
        return "packed" if packed < masked else "masked"
    split = format_time("blockdiag", density=within, **sizes) + format_time("csr", density=between, **sizes)
    return "blockdiag+csr" if p_intra == 1.0 and split < masked else "masked"
