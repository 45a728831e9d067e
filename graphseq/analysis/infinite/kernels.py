"""Kernels of infinitely wide networks, computed in logarithms through any depth."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphseq.analysis.infinite.duals import DualActivation, dual_activation

__all__ = ["LogKernel", "empirical_ntk", "nngp_kernel", "ntk_kernel"]


@dataclass(frozen=True)
class LogKernel:
    r"""Entries of a kernel by sign and logarithm, so that :math:`A^L` does not vanish at depth :math:`10^5`.

    Args:
        log: logarithms of the absolute entries, float64 (N, M); ``-inf`` for 0.
        sign: their signs, float64 (N, M), each -1, 0 or 1.
        log_diagonal: logarithm of the kernel of an input with itself, the same for all inputs.

    Example:
        >>> kernel = nngp_kernel(torch.eye(2, dtype=torch.float64), nn.Tanh(), depth=3)
        >>> kernel.values().tolist(), kernel.log_diagonal
        ([[1.0, 0.0], [0.0, 1.0]], 0.0)
    """

    log: Tensor
    sign: Tensor
    log_diagonal: float

    def values(self, log_scale: float = 0.0) -> Tensor:
        """Return the entries divided by the exponential of ``log_scale``.

        Args:
            log_scale: logarithm of the divisor, such as ``depth * math.log(A)``.
        """
        return self.sign * (self.log - log_scale).exp()


def nngp_kernel(x: Tensor, activation: nn.Module, depth: int, y: Tensor | None = None) -> LogKernel:
    r"""Return the covariance of the outputs of an infinitely wide network at its initialisation.

    .. math:: \Sigma_0 = \langle x, y \rangle, \qquad \Sigma_{l+1} = \check\varphi(\Sigma_l)

    with the dual :math:`\check\varphi` of the activation, scaled to :math:`E\,\varphi(z)^2 = 1`. The kernel of an input
    with itself is 1 at every depth; this is set, not computed, since rounding errors would grow with the depth.

    Source: arXiv 2204.14126.

    Args:
        x: inputs of norm 1 (N, D).
        activation: activation of all hidden layers; see :func:`~graphseq.analysis.dual_activation`.
        depth: number L of hidden layers, at least 0.
        y: other inputs of norm 1 (M, D); None for ``x``.

    Raises:
        ValueError: if an input is not of norm 1, ``depth`` is negative, or a logarithm leaves the range of float64.

    Example:
        >>> nngp_kernel(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), nn.ReLU(), depth=1).values()[0, 1]
        tensor(0.6775, dtype=torch.float64)
    """
    dual, correlation, same = _given(x, y, activation, depth)
    log, sign = _log_sign(correlation)
    for layer in range(depth):
        sigma = sign * log.exp()
        if dual.order == 1 and _is_settled(dual, sigma, same):
            log = log + (depth - layer) * float(dual.ratio(torch.zeros((), dtype=torch.float64)).log())
            break
        log, sign = _through(dual, log, sign, sigma)
    _check(log, sign, depth)
    return LogKernel(log.masked_fill(same, 0.0), sign.masked_fill(same, 1.0), 0.0)


def ntk_kernel(x: Tensor, activation: nn.Module, depth: int, y: Tensor | None = None) -> LogKernel:
    r"""Return the neural tangent kernel of an infinitely wide network.

    .. math:: K_0 = \Sigma_0 = \langle x, y \rangle, \qquad
        K_{l+1} = \Sigma_{l+1} + K_l\, \check\varphi'(\Sigma_l)

    with :math:`\Sigma_l` of :func:`nngp_kernel`. The kernel of an input with itself is :math:`\sum_{l=0}^{L} B^l` with
    :math:`B = \check\varphi'(1)`.

    Source: arXiv 2204.14126.

    Args:
        x: inputs of norm 1 (N, D).
        activation: activation of all hidden layers; see :func:`~graphseq.analysis.dual_activation`.
        depth: number L of hidden layers, at least 0.
        y: other inputs of norm 1 (M, D); None for ``x``.

    Raises:
        ValueError: if an input is not of norm 1, ``depth`` is negative, or a logarithm leaves the range of float64.

    Example:
        >>> ntk_kernel(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), nn.ReLU(), depth=1).values()
        tensor([[2.0000, 0.3183],
                [0.3183, 2.0000]], dtype=torch.float64)
    """
    dual, correlation, same = _given(x, y, activation, depth)
    log, sign = _log_sign(correlation)
    kernel_log, kernel_sign = log, sign
    for layer in range(depth):
        sigma = sign * log.exp()
        if dual.order == 1 and _is_settled(dual, sigma, same):
            # from here on both are multiplied by A, and each layer adds one more of the first
            rest, slope = depth - layer, float(dual.ratio(torch.zeros((), dtype=torch.float64)).log())
            kernel_log, kernel_sign = _sum(kernel_log, kernel_sign, log + math.log(rest), sign)
            log, kernel_log = log + rest * slope, kernel_log + rest * slope
            break
        slope_log, slope_sign = _log_sign(dual.slope_ratio(sigma))
        if dual.order > 1:
            slope_log = slope_log + (dual.order - 1) * log
            slope_sign = slope_sign * sign ** (dual.order - 1)
        log, sign = _through(dual, log, sign, sigma)
        kernel_log, kernel_sign = _sum(log, sign, kernel_log + slope_log, kernel_sign * slope_sign)
    _check(log, sign, depth)
    _check(kernel_log, kernel_sign, depth)
    diagonal = _log_diagonal(float(dual.slope(torch.ones((), dtype=torch.float64))), depth)
    return LogKernel(kernel_log.masked_fill(same, diagonal), kernel_sign.masked_fill(same, 1.0), diagonal)


def empirical_ntk(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    r"""Return the neural tangent kernel of a finite network with one output.

    .. math:: K(x, y) = \langle \nabla_\theta f(x), \nabla_\theta f(y) \rangle

    The gradients of all inputs are held at once: (N + M) P numbers for P parameters.

    Source: arXiv 1806.07572.

    Args:
        model: network that gives one number for each input, as (N,) or (N, 1).
        x: inputs (N, *).
        y: other inputs (M, *); None for ``x``.

    Raises:
        ValueError: if the network has no parameters or several outputs, or a batch norm is in training mode.

    Example:
        >>> empirical_ntk(nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]])
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters, and therefore no neural tangent kernel")
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            raise ValueError(
                f"{type(layer).__name__} is in training mode, where outputs depend on others; call model.eval()"
            )

    def output(values: dict[str, Tensor], one: Tensor) -> Tensor:
        result = torch.func.functional_call(model, values, (one[None],))
        if result.numel() != 1:
            raise ValueError(
                f"{type(model).__name__} gives {result.numel()} numbers for one input; give a network with one output"
            )
        return result.reshape(())

    per_input = torch.func.vmap(torch.func.grad(output), (None, 0))

    def gradients(inputs: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in per_input(parameters, inputs).values()], 1)

    of_x = gradients(x)
    return of_x @ (of_x if y is None else gradients(y)).T


def _given(x: Tensor, y: Tensor | None, activation: nn.Module, depth: int) -> tuple[DualActivation, Tensor, Tensor]:
    """Return the dual, the correlations (N, M), and where they are of an input with itself."""
    if not isinstance(depth, int) or depth < 0:
        raise ValueError(f"depth is {depth}; it is a whole number of hidden layers, at least 0")
    for name, inputs in {"x": x, "y": y}.items():
        if inputs is not None and (not isinstance(inputs, Tensor) or inputs.is_complex()):
            given = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(f"{name} is {given}; give a tensor of real numbers")
    x = x.double()
    y = x if y is None else y.double()
    for name, inputs in {"x": x, "y": y}.items():
        if inputs.dim() != 2:
            raise ValueError(f"{name} is of shape {tuple(inputs.shape)}; give inputs (N, D)")
        off = (inputs.norm(dim=1) - 1).abs()
        if not bool((off <= 1e-5).all()):
            row = int(off.nan_to_num(math.inf).argmax())
            raise ValueError(
                f"row {row} of {name} has norm {float(inputs[row].norm()):.6g}; all inputs must lie on the unit "
                "sphere: divide them by their norms"
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} features and y {y.shape[1]}; they must have the same")
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    correlation = (x @ y.T).clamp(-1.0, 1.0)
    same = correlation >= 1.0 - 1e-15
    # 1 is a fixed point from which rounding departs: callers write the diagonal, and 0 stays where it is
    return dual_activation(activation), correlation.masked_fill(same, 0.0), same


def _log_sign(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.abs().log(), values.sign()


def _sum(a: Tensor, a_sign: Tensor, b: Tensor, b_sign: Tensor) -> tuple[Tensor, Tensor]:
    """Return logarithm and sign of a sum of two numbers given by theirs."""
    largest = torch.maximum(a, b)
    shift = largest.masked_fill(largest == -math.inf, 0.0)  # 0 + 0
    log, sign = _log_sign(a_sign * (a - shift).exp() + b_sign * (b - shift).exp())
    return log + shift, sign


def _through(dual: DualActivation, log: Tensor, sign: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return logarithm and sign after one layer."""
    ratio_log, ratio_sign = _log_sign(dual.ratio(sigma))
    if dual.order:
        ratio_log, ratio_sign = dual.order * log + ratio_log, ratio_sign * sign**dual.order
    return ratio_log.clamp(max=0.0), ratio_sign  # a correlation; rounding would grow beyond 1


def _is_settled(dual: DualActivation, sigma: Tensor, same: Tensor) -> bool:
    """Return whether each further layer multiplies all entries, but those of an input with itself, by A exactly."""
    zero = torch.zeros((), dtype=sigma.dtype)
    settled = (dual.ratio(sigma) == dual.ratio(zero)) & (dual.slope_ratio(sigma) == dual.slope_ratio(zero))
    return bool((settled | same).all())


def _check(log: Tensor, sign: Tensor, depth: int) -> None:
    if bool(log.isnan().any()) or bool(((log == -math.inf) & (sign != 0)).any()):
        raise ValueError(
            f"depth is {depth}: logarithms of the kernel leave the range of float64, as they double with each layer "
            "for an activation without a linear part; its network is a nearest-neighbour classifier long before"
        )


def _log_diagonal(slope: float, depth: int) -> float:
    """Return the logarithm of the sum of the powers of B up to the depth."""
    if abs(slope - 1.0) < 1e-12:
        return math.log(depth + 1)
    powers = torch.arange(depth + 1, dtype=torch.float64) * math.log(slope)
    return float(powers.logsumexp(0))
