"""Binary focal losses of logits, real and complex."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["complex_focal_loss", "focal_loss"]

_LEAST = 1e-12  # of 1 - p: at 0 a power below 1 has no derivative, and the loss itself is 0


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 1.0, gamma: float = 2.0) -> Tensor:
    r"""Return the binary focal loss of each real logit.

    .. math:: L = \alpha\, (1 - p_t)^\gamma\, \mathrm{BCE}(\sigma(z), m), \qquad p_t = e^{-\mathrm{BCE}(\sigma(z), m)}

    It is computed from the logits in float32 or wider, under autocast as well, and stays finite where
    :math:`\sigma(z)` rounds to 0 or 1.

    Source: arXiv 1708.02002, eq. 4; here :math:`\alpha` scales both classes alike, as in arXiv 2506.11048.

    Args:
        logits: real logits z.
        target: 0 or 1, of the same shape.
        alpha: factor, above 0.
        gamma: exponent, at least 0; 0 gives binary cross-entropy.

    Shape:
        logits (*), target (*) -> (*)

    Raises:
        TypeError: if the logits or the target are complex.
        ValueError: if the shapes differ, or an argument is out of range; on a CPU, if a target is outside of [0, 1].

    Example:
        >>> focal_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])).round(decimals=4)
        tensor([0.1733, 0.0227])
    """
    if not logits.is_floating_point():
        raise TypeError(f"logits are {logits.dtype}; give real logits, and complex ones to complex_focal_loss")
    if target.is_complex():
        raise TypeError(f"target is {target.dtype}; masks are real, 0 and 1")
    if logits.shape != target.shape:
        raise ValueError(f"logits are {tuple(logits.shape)}, target {tuple(target.shape)}; they must be equal")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    target = target.to(dtype)
    # on a GPU the check would synchronise
    if target.device.type == "cpu" and target.numel() and not torch.compiler.is_compiling():
        low, high = (float(bound) for bound in target.detach().aminmax())
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"target ranges from {low:g} to {high:g}; masks are 0 and 1: divide a mask of 0 and 255, and leave "
                "out samples with NaN"
            )
    if not (alpha > 0 and gamma >= 0):
        raise ValueError(f"alpha is {alpha} and gamma {gamma}; alpha must be above 0 and gamma at least 0")
    with torch.autocast(logits.device.type, enabled=False):
        entropy = functional.binary_cross_entropy_with_logits(logits.to(dtype), target, reduction="none")  # -log p_t
        return alpha * (-torch.expm1(-entropy)).clamp(min=_LEAST) ** gamma * entropy


def complex_focal_loss(logits: Tensor, target: Tensor, alpha: float = 1.0, gamma: float = 2.0) -> Tensor:
    r"""Return the mean of the focal losses of the real and of the imaginary part of each complex logit.

    .. math:: L = \tfrac12 \bigl(\mathrm{FL}(\operatorname{Re} z, m) + \mathrm{FL}(\operatorname{Im} z, m)\bigr)

    Source: arXiv 2506.11048, the complex-valued focal loss.

    Args:
        logits: complex logits z; the sigmoid acts on each part.
        target: real, 0 or 1, of the same shape.
        alpha: factor, above 0.
        gamma: exponent, at least 0; 0 gives the mean of the binary cross-entropies of the parts.

    Shape:
        logits (*) complex, target (*) real -> (*) real

    Raises:
        TypeError: if the logits are not complex.
        ValueError: if the shapes differ, or an argument is out of range.

    Example:
        >>> complex_focal_loss(torch.tensor([0.0 + 3.0j]), torch.tensor([1.0])).round(decimals=4)
        tensor([0.0867])
    """
    if not logits.is_complex():
        raise TypeError(f"logits are {logits.dtype}; give complex logits, and real ones to focal_loss")
    real, imaginary = (focal_loss(part, target, alpha, gamma) for part in (logits.real, logits.imag))
    return (real + imaginary) / 2
