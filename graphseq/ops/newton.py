"""Nonlinear recurrences over the steps of sequences: solved for all steps at once by Newton's method, or by a loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.processor import reads_are_free
from graphseq.ops.scan import fused

__all__ = ["NewtonReport", "newton_solve", "sequential_solve"]

StepFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Linearization: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class NewtonReport(NamedTuple):
    """How Newton's method ended.

    Args:
        iterations: number of linear recurrences that were solved.
        residual: largest :math:`|f(h_{t-1}, x_t) - h_t|` over all steps, of a type real (); infinite or NaN if the
            iteration diverged. It is that of Newton's solution also where the loop over steps has replaced it.
        converged: whether the residual is at most the tolerance, bool ().
        fell_back: whether the states are those of the loop over steps.

    Example:
        >>> NewtonReport(3, torch.tensor(1e-7), torch.tensor(True), False).iterations
        3
    """

    iterations: int
    residual: Tensor
    converged: Tensor
    fell_back: bool


def newton_solve(
    step: StepFunction,
    x: Tensor,
    initial: Tensor,
    *,
    linearize: Linearization | None = None,
    max_iterations: int = 10,
    tolerance: float | None = None,
    fallback: bool = True,
) -> tuple[Tensor, NewtonReport]:
    r"""Return all states of a nonlinear recurrence, found by Newton's method, and how the method ended.

    .. math::
        h_t = f(h_{t-1}, x_t), \qquad
        \delta_t = J_t\, \delta_{t-1} + f(h_{t-1}, x_t) - h_t, \qquad h \leftarrow h + \delta

    with the Jacobian J of f by the state, which is diagonal or has a 2 x 2 block for each channel, so that an iteration
    is one call of :func:`linear_scan`. It starts from :math:`f(0, x_t)`. A linear recurrence takes one iteration, any
    other at most T; where :math:`|J|` is moderate, errors are squared in each iteration. The gradient is that of the
    solution, whatever the number of iterations: :math:`\lambda_t = g_t + J_{t+1}^\top \lambda_{t+1}`, one scan
    backwards, and one call of f for all steps. It can be taken once.

    On a processor the iteration ends as soon as the residual is within the tolerance, or is no longer finite. On an
    accelerator, where each look at the residual would wait, all iterations are made, and the residual is looked at
    once, to decide whether to fall back, or not at all with ``fallback=False``.

    Source: arXiv 2510.21450, eq. 2.4 to 2.6 and A.1. Differs from it: the number of iterations is not fixed where the
    residual can be read, and a solution that has not converged is replaced by the loop over steps.

    Args:
        step: function f of states (..., D) or (..., 2, D) and inputs (..., G) with equal leading axes, which treats
            channels d independently; it may use parameters.
        x: inputs of all steps.
        initial: state before the first step.
        linearize: function of the same arguments that returns f and its Jacobian, (..., D) or (..., 2, 2, D); None
            takes the Jacobian from autograd.
        max_iterations: largest number of iterations, at least 1.
        tolerance: largest residual of a solution, in the units of the state; None for 16 times the precision of the
            type, times the largest state if that is above 1.
        fallback: whether a solution that has not converged is replaced by that of :func:`sequential_solve`.

    Shape:
        x (B, T, G), initial (B, D) -> (B, T, D), or initial (B, 2, D) -> (B, T, 2, D)

    Raises:
        ValueError: if a shape or type does not fit, or an argument is out of range.

    Example:
        >>> x = torch.randn(2, 100, 3)
        >>> states, report = newton_solve(lambda h, x: torch.tanh(0.5 * h + x), x, torch.zeros(2, 3))
        >>> bool(report.converged), report.iterations < 10
        (True, True)
    """
    _check(x, initial)
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}; give a whole number of at least 1")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; give a number above 0, or None")
    if not x.shape[1]:
        report = NewtonReport(0, initial.new_zeros(()), torch.tensor(True, device=x.device), False)
        return _empty(x, initial), report
    linearize = linearize or functools.partial(_linearize, step)
    h, jacobian, report = _iterate(step, linearize, x.detach(), initial.detach(), max_iterations, tolerance)
    if fallback and not bool(report.converged):
        return sequential_solve(step, x, initial, linearize=linearize), report._replace(fell_back=True)
    return _with_gradient(step, x, initial, h, jacobian), report


def sequential_solve(
    step: StepFunction, x: Tensor, initial: Tensor, *, linearize: Linearization | None = None
) -> Tensor:
    r"""Return all states of a nonlinear recurrence, found step by step.

    .. math:: h_t = f(h_{t-1}, x_t)

    The loop is not recorded: the gradient is that of :func:`newton_solve`, one scan backwards.

    Args:
        step: function f, as for :func:`newton_solve`.
        x: inputs of all steps.
        initial: state before the first step.
        linearize: function that returns f and its Jacobian, as for :func:`newton_solve`; None takes the Jacobian from
            autograd.

    Shape:
        x (B, T, G), initial (B, D) -> (B, T, D), or initial (B, 2, D) -> (B, T, 2, D)

    Raises:
        ValueError: if a shape or type does not fit.

    Example:
        >>> sequential_solve(lambda h, x: h + x, torch.ones(1, 3, 1), torch.zeros(1, 1)).flatten()
        tensor([1., 2., 3.])
    """
    _check(x, initial)
    if not x.shape[1]:
        return _empty(x, initial)
    with torch.no_grad():
        state, found = initial, []
        for x_t in x.unbind(1):
            state = step(state, x_t)
            found.append(state)
        h = torch.stack(found, 1)
    return _with_gradient(step, x, initial, h, None, linearize or functools.partial(_linearize, step))


@torch.no_grad()
def _iterate(
    step: StepFunction, linearize: Linearization, x: Tensor, initial: Tensor, most: int, tolerance: float | None
) -> tuple[Tensor, Tensor, NewtonReport]:
    """Newton's iteration: states f(h_{t-1}), the Jacobian there, and how it ended."""
    readable = reads_are_free(x.device)
    h = step(_shifted(initial, initial.new_zeros(x.shape[0], x.shape[1], *initial.shape[1:])), x)
    iterations = 0
    while True:
        new, jacobian = linearize(_shifted(initial, h), x)
        rest = new - h
        residual = rest.abs().amax()
        limit = tolerance or 16 * torch.finfo(h.dtype).eps * new.abs().amax().clamp(min=1)
        done = residual <= limit
        if iterations == most or (readable and (bool(done) or not bool(residual.isfinite()))):
            return new, jacobian, NewtonReport(iterations, residual, done, False)
        h += fused.scan(jacobian, rest, torch.zeros_like(initial), False, "auto")
        iterations += 1


def _shifted(initial: Tensor, h: Tensor) -> Tensor:
    """States before each step."""
    return torch.cat([initial[:, None], h[:, :-1]], 1)


def _with_gradient(
    step: StepFunction,
    x: Tensor,
    initial: Tensor,
    h: Tensor,
    jacobian: Tensor | None,
    linearize: Linearization | None = None,
) -> Tensor:
    """Attach the gradient of the solution to states that were found without one.

    One call of f at the solution carries the gradient to inputs, parameters and initial state; the scan before it turns
    the gradient of the states into that of each step's own result.
    """
    if not torch.is_grad_enabled():
        return h
    y = step(_shifted(initial, h), x)
    if not y.requires_grad:
        return h
    if jacobian is None:
        assert linearize is not None
        with torch.no_grad():
            _, jacobian = linearize(_shifted(initial, h), x)
    return cast(Tensor, _Implicit.apply(y, h, jacobian))


class _Implicit(Function):
    """The states themselves; their gradient goes to the results of the steps by the adjoint recurrence."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, jacobian: Tensor) -> Tensor:
        ctx.save_for_backward(jacobian)
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the states of a nonlinear recurrence cannot be differentiated twice (create_graph=True): record a "
                "loop over steps instead"
            )
        (jacobian,) = ctx.saved_tensors
        return fused.adjoint(gradients[0], jacobian), None, None


def _linearize(step: StepFunction, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Result and Jacobian of a function that treats channels independently."""
    with torch.enable_grad():
        state = state.detach().requires_grad_()
        y = step(state, x.detach())
        if y.dim() == x.dim() and state.dim() == x.dim():
            (jacobian,) = torch.autograd.grad(y.sum(), state, materialize_grads=True)
        else:
            rows = [
                torch.autograd.grad(part.sum(), state, retain_graph=True, materialize_grads=True)[0]
                for part in y.unbind(-2)
            ]
            jacobian = torch.stack(rows, -3)
    return y.detach(), jacobian


def _empty(x: Tensor, initial: Tensor) -> Tensor:
    return initial.new_zeros(x.shape[0], 0, *initial.shape[1:])


def _check(x: Tensor, initial: Tensor) -> None:
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(f"x is {x.dtype} {tuple(x.shape)}; give floating-point inputs (B, T, G)")
    diagonal = initial.dim() == 2
    if initial.shape[:1] != x.shape[:1] or not (diagonal or (initial.dim() == 3 and initial.shape[1] == 2)):
        raise ValueError(
            f"initial is {tuple(initial.shape)}; for inputs of shape {tuple(x.shape)} give ({x.shape[0]}, D), or "
            f"({x.shape[0]}, 2, D) for two numbers a channel"
        )
    if initial.dtype != x.dtype:
        raise ValueError(f"initial is {initial.dtype} and x {x.dtype}; they must have one type")
