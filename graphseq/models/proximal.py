"""Learned proximal networks: gradients of input-convex networks, their inverse, and the prior that they stand for."""

import copy
import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["LearnedProximal"]


class LearnedProximal(Recorded, nn.Module):
    r"""Gradient of a convex network: exactly the proximal operator of some function R, the learned prior.

    .. math::
        f(y) = \nabla \bigl(\psi(y) + \alpha \lVert y \rVert^2\bigr) = \operatorname{prox}_R(y)
            = \arg\min_x \tfrac12 \lVert x - y \rVert^2 + R(x)

    Trained as a denoiser by :class:`graphseq.nn.ProximalMatchingLoss`, R becomes the negative log-density of the clean
    data times the variance of the noise. :meth:`prior` gives its values, :meth:`invert` the inverse of f, and
    :mod:`graphseq.analysis` has the restoration algorithms that use f as their proximal step.

    The gradient is taken under ``torch.enable_grad``, also in inference mode, and can itself be differentiated where
    gradients are enabled. The network records the range of its inputs in training mode; outside of it, its outputs say
    nothing about the data.

    Source: arXiv 2310.14344, section 3; R by the theorem of Gribonval and Nikolova, eq. 3.4. Differs from the authors'
    code: the caller's tensor is not changed; the inverse is computed in float64, and f(invert(x)) = x is checked.

    Args:
        potential: network from points (B, \*) to values (B,), convex and smooth in each point, such as
            :class:`graphseq.nn.InputConvexNetwork`. If the potential is not convex, the output is still its gradient,
            but not a proximal operator.
        alpha: strong convexity :math:`\alpha`, at least 0: all eigenvalues of the Jacobian of f are at least
            :math:`2 \alpha`, and f is surjective if alpha is above 0.

    Shape:
        y (B, \*) real -> (B, \*)

    Raises:
        ValueError: if ``alpha`` is below 0, or ``potential`` does not return (B,).
        TypeError: if ``potential`` is not a module, or ``y`` is not real.

    Example:
        >>> from graphseq.nn import InputConvexNetwork
        >>> network = LearnedProximal(InputConvexNetwork(2), alpha=0.1)
        >>> y = torch.randn(5, 2)
        >>> x = network(y)
        >>> torch.allclose(network.invert(x), y, atol=1e-3), network.prior(x).shape
        (True, torch.Size([5]))
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, potential: nn.Module, alpha: float = 0.0) -> None:
        super().__init__()
        if not isinstance(potential, nn.Module):
            raise TypeError(f"potential is a {type(potential).__name__}; it must be a torch.nn.Module")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha is {alpha}; it must be at least 0 and finite")
        self.potential, self.alpha = potential, alpha
        # smallest and largest value that was seen in training
        self.register_buffer("lowest", torch.tensor(math.inf))
        self.register_buffer("highest", torch.tensor(-math.inf))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise the potential, and forget the range of the values."""
        self.lowest.fill_(math.inf)
        self.highest.fill_(-math.inf)
        reset = getattr(self.potential, "reset_parameters", None)  # of any network that a user gives
        if callable(reset):
            reset()

    def value(self, y: Tensor) -> Tensor:
        r"""Return the convex function :math:`\psi(y) + \alpha \lVert y \rVert^2`, (B,).

        Args:
            y: points (B, \*).
        """
        value = self.potential(y)
        if value.shape != y.shape[:1]:
            raise ValueError(
                f"{type(self.potential).__name__} returned {tuple(value.shape)} for {tuple(y.shape)}; a potential "
                "returns one value for each sample, (B,)"
            )
        return value + self.alpha * y.flatten(1).square().sum(1)

    def forward(self, y: Tensor) -> Tensor:
        """Return the gradient at each point.

        Args:
            y: points (B, *), noisy images for a denoiser.
        """
        _check_real(y, "y")
        differentiable = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if self.training and differentiable and y.numel():
            with torch.no_grad():
                # a NaN is passed over, for no value could be compared with it afterwards
                self.lowest.copy_(torch.fmin(self.lowest, y.min()))
                self.highest.copy_(torch.fmax(self.highest, y.max()))
        # half precision would round the gradient so far that it is no gradient any more
        autocast = torch.autocast(y.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), autocast:
            parameter = next(self.potential.parameters(), y)
            kept = differentiable and y.requires_grad  # else a copy: the caller's tensor stays as it is
            point = y if kept else y.detach().clone().requires_grad_()
            value = self.value(point.to(parameter.dtype))
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=differentiable)
        return gradient

    def invert(self, x: Tensor, tolerance: float = 1e-6, max_iterations: int = 500) -> Tensor:
        r"""Return points y with f(y) = x, by L-BFGS in float64.

        .. math:: y = \arg\min_y \psi(y) + \alpha \lVert y \rVert^2 - \langle x, y \rangle

        Args:
            x: points (B, \*) in the range of f.
            tolerance: largest allowed absolute difference between an entry of f(y) and of x, above 0.
            max_iterations: largest number of L-BFGS iterations, at least 1.

        Raises:
            ValueError: if a point has no inverse: it lies outside the range of f, which is bounded if ``alpha`` is 0,
                or more iterations are needed; or if ``x`` is not finite, or outside the range of the training inputs.
            TypeError: if ``x`` is not real.
        """
        return self._inverse(x, tolerance, max_iterations)[1].to(x.dtype)

    def prior(self, x: Tensor, tolerance: float = 1e-6, max_iterations: int = 500) -> Tensor:
        r"""Return the learned prior at each point, up to a constant that is the same for all, float64 (B,).

        .. math:: R(x) = \langle x, y \rangle - \tfrac12 \lVert x \rVert^2 - \psi(y) - \alpha \lVert y \rVert^2,
            \qquad y = f^{-1}(x)

        For points unlike any denoised sample, y lies far outside the training inputs and R is extrapolated: it grows
        with the distance, and its values carry no other information.

        Args:
            x: points (B, \*) in the range of f.
            tolerance: see :meth:`invert`.
            max_iterations: see :meth:`invert`.

        Raises:
            ValueError: as in :meth:`invert`.
            TypeError: as in :meth:`invert`.
        """
        network, y = self._inverse(x, tolerance, max_iterations)
        with torch.inference_mode(False), torch.no_grad():
            x = x.detach().clone().double()
            products = (x * y - 0.5 * x.square()).flatten(1).sum(1)
            return products - network.value(y)

    def _inverse(self, x: Tensor, tolerance: float, max_iterations: int) -> tuple["LearnedProximal", Tensor]:
        """Return the network and the inverse, both in float64."""
        _check_real(x, "x")
        if not tolerance > 0 or max_iterations < 1:
            raise ValueError(
                f"tolerance is {tolerance} and max_iterations {max_iterations}; give a number above 0, and at least 1"
            )
        if not x.numel() or not bool(x.isfinite().all()):
            raise ValueError(f"x {tuple(x.shape)} is empty or holds NaN or infinite values; give finite numbers")
        self.check_range(x, "x")
        with torch.inference_mode(False), torch.enable_grad():
            network = copy.deepcopy(self).double().eval().requires_grad_(False)
            target = x.detach().clone().double()
            y = target.clone().requires_grad_()
            optimizer = torch.optim.LBFGS(
                [y], max_iter=max_iterations, tolerance_grad=0.1 * tolerance, tolerance_change=0.0, history_size=20,
                line_search_fn="strong_wolfe",
            )  # fmt: skip

            def objective() -> Tensor:
                optimizer.zero_grad()
                total = network.value(y).sum() - (target * y).sum()
                total.backward()
                return total

            optimizer.step(objective)
        error = (network(y.detach()) - target).abs().flatten(1).amax(1)  # (B,)
        worst = int(error.argmax())
        if not bool(error.max() <= tolerance):
            raise ValueError(
                f"x[{worst}] has no inverse: f(y) differs from it by {float(error[worst]):.2g} after at most "
                f"{max_iterations} iterations. It may lie outside the range of f, which alpha > 0 makes the whole "
                "space; else give more iterations or a larger tolerance"
            )
        return network, y.detach()

    def check_range(self, y: Tensor, name: str = "y") -> None:
        r"""Raise if values lie outside the range of the noisy values that the network was trained on.

        The range is that of all inputs in training mode, widened by a hundredth on both sides; a network that was never
        called in training mode accepts all values.

        Args:
            y: points (B, \*).
            name: name of the points, for the message.

        Raises:
            ValueError: if a value lies outside of the range.
        """
        if not y.numel():
            return
        low, high = float(self.lowest), float(self.highest)
        least, largest = float(y.detach().min()), float(y.detach().max())
        margin = 0.01 * (high - low)
        if low <= high and not low - margin <= least <= largest <= high + margin:
            raise ValueError(
                f"{name} ranges from {least:.4g} to {largest:.4g}, the noisy values of the training from {low:.4g} to "
                f"{high:.4g}; rescale the values as in training, or train with more noise"
            )

    def extra_repr(self) -> str:
        """Return the strong convexity."""
        return f"alpha={self.alpha:g}"


def _check_real(y: Tensor, name: str) -> None:
    if not isinstance(y, Tensor) or not y.is_floating_point():
        given = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{name} is {given}; give a tensor of real floating-point numbers, images after ToFloat")
