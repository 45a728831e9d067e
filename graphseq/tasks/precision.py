"""Optimisers in the precision of the parameters."""

import torch

__all__: list[str] = []

_HALF_EPSILON = 1e-4
"""Least term beside the root of a mean square in float16, where squares below 6e-8 are 0."""


def check_epsilon(optimizer: torch.optim.Optimizer, *, replace: bool) -> None:
    """Refuse an epsilon too small for float16, where updates of parameters without gradient become 0 / 0.

    Args:
        optimizer: any optimiser; those without ``eps`` pass.
        replace: whether to set it to 1e-4 instead.

    Raises:
        ValueError: if it is too small and not to be replaced.

    Example:
        >>> check_epsilon(torch.optim.Adam([torch.nn.Parameter(torch.ones(1))]), replace=False)
    """
    for group in optimizer.param_groups:
        half = any(parameter.dtype == torch.float16 for parameter in group["params"])
        epsilon = group.get("eps")
        if not half or epsilon is None or epsilon >= _HALF_EPSILON:
            continue
        if not replace:
            raise ValueError(
                f"{type(optimizer).__name__} has eps={epsilon}, too small beside squares of gradients in float16: "
                f"updates become NaN. Give eps={_HALF_EPSILON} or more, or use precision='16-mixed' or 'bf16-true'"
            )
        group["eps"] = _HALF_EPSILON
