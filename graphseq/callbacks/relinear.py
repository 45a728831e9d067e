"""ReLinear: quadratic terms of a network that start from zero and grow slowly."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from graphseq.nn import QuadraticConv2d, QuadraticLinear, relinear_param_groups
from graphseq.tasks.base import Task

__all__ = ["ReLinear"]

_Quadratic = QuadraticLinear | QuadraticConv2d


class _Grouped:
    """Callable from parameters to an optimiser, which gets them in the groups of ReLinear."""

    def __init__(self, optimizer: OptimizerCallable | None, network: nn.Module, gamma_g: float, gamma_b: float) -> None:
        self.given = optimizer
        self.network, self.gamma_g, self.gamma_b = network, gamma_g, gamma_b

    def __call__(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        groups = relinear_param_groups(self.network, 1.0, self.gamma_g, self.gamma_b, parameters)
        for group in groups:
            del group["lr"]  # each gets that of the optimiser
        built = torch.optim.Adam(groups) if self.given is None else self.given(groups)
        for group in built.param_groups:
            group["lr"] = group["lr"] * group["relinear"]
        return built


class ReLinear(Callback):
    r"""Let the quadratic terms of a network grow slowly, so that deep quadratic networks train stably.

    It acts on the gates g (:math:`W_g`, and :math:`b_g`, which starts from 1) and the power terms b (:math:`W_b, c`) of
    all quadratic layers. There are three mechanisms, each of which can be used alone; the default is the first:

    * *shrunk learning rate*: :math:`\eta_g = \gamma_g \eta`, :math:`\eta_b = \gamma_b \eta`. The task's optimiser gets
      the groups of :func:`graphseq.nn.relinear_param_groups`; schedulers have to keep the ratios. With
      :math:`\gamma = 0` the quadratic terms stay as they began; 1 is ordinary training. The biases of the gates have no
      weight decay.
    * *decay to the linear network*: after each step :math:`W_g \leftarrow W_g - \eta_g \alpha_g W_g`,
      :math:`b_g \leftarrow b_g - \eta_g \alpha_g (b_g - 1)`, and the same for b with :math:`\alpha_b` and target 0,
      where :math:`\eta` is the current rate of their group.
    * *clipping*: after each step :math:`|W_g|, |b_g - 1| \le \beta_g` and :math:`|W_b|, |c| \le \beta_b`.

    The callback has no state of its own: the groups are in the state of the optimiser, so that a resumed run is
    bit-identical to an uninterrupted one.

    Source: arXiv 2110.06081 and the official scripts, which implement the shrunk learning rate only. Decay and clipping
    may differ from the paper's in detail.

    Args:
        gamma_g: factor of the learning rate of the gates, at least 0. The paper's code has 1e-4, and 1e-2 where
            residual branches start from zero.
        gamma_b: factor of the learning rate of the power terms, at least 0.
        decay_g: rate of the gates' decay to the linear network, at least 0.
        decay_b: rate of the power terms' decay, at least 0.
        bound_g: largest distance of a gate's parameters from the linear network, at least 0; None for none.
        bound_b: largest absolute value of a power term's parameters, at least 0; None for none.

    Raises:
        ValueError: if a number is negative; when training starts, if a scheduler gave all groups the same rate, or the
            task does not build its optimiser by its argument ``optimizer``.
        TypeError: at the start of the run, if the network has no quadratic layers, or the task is not a
            :class:`graphseq.tasks.Task`.

    Example:
        >>> ReLinear(gamma_g=0.1, gamma_b=0.1).gamma_g
        0.1
    """

    def __init__(
        self,
        gamma_g: float = 1e-2,
        gamma_b: float = 1e-2,
        decay_g: float = 0.0,
        decay_b: float = 0.0,
        bound_g: float | None = None,
        bound_b: float | None = None,
    ) -> None:
        numbers = {"gamma_g": gamma_g, "gamma_b": gamma_b, "decay_g": decay_g, "decay_b": decay_b,
                   "bound_g": bound_g, "bound_b": bound_b}  # fmt: skip
        for name, value in numbers.items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}; it must be at least 0")
        self.gamma_g, self.gamma_b = gamma_g, gamma_b
        self.decay_g, self.decay_b = decay_g, decay_b
        self.bound_g, self.bound_b = bound_g, bound_b
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._terms: dict[Tensor, tuple[str, float]] = {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Let the task build its optimiser with groups of parameters."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Task):
            raise TypeError(f"the task is a {type(pl_module).__name__}; ReLinear needs a task of graphseq")
        if not any(isinstance(layer, _Quadratic) for layer in pl_module.modules()):
            raise TypeError(
                f"{type(pl_module.model).__name__} has no quadratic layers; build it with QuadraticLinear or "
                "QuadraticConv2d, or replace layers by graphseq.nn.quadratize"
            )
        pl_module.optimizer = _Grouped(pl_module.optimizer, pl_module, self.gamma_g, self.gamma_b)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the task back its own optimiser argument."""
        self._restore(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the rates of the groups, and register what is done after each step."""
        grouped = [group for optimizer in trainer.optimizers for group in optimizer.param_groups if "relinear" in group]
        if not grouped:
            raise ValueError(
                f"{type(pl_module).__name__} does not build its optimiser by its argument `optimizer`; ReLinear cannot "
                "group its parameters"
            )
        if trainer.global_step == 0:
            _check_rates(trainer)
        if any((self.decay_g, self.decay_b)) or (self.bound_g, self.bound_b) != (None, None):
            self._terms = _terms(pl_module)
            self._handles += [built.register_step_post_hook(self._restrain) for built in trainer.optimizers]

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Give the task back its own optimiser argument: an interrupted run is not torn down."""
        self._restore(pl_module)

    def _restore(self, task: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._terms = [], {}
        if isinstance(task, Task) and isinstance(task.optimizer, _Grouped):
            task.optimizer = task.optimizer.given

    @torch.no_grad()
    def _restrain(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter not in self._terms:
                    continue
                term, target = self._terms[parameter]
                decay, bound = (self.decay_g, self.bound_g) if term == "gate" else (self.decay_b, self.bound_b)
                if decay:
                    parameter.sub_(group["lr"] * decay * (parameter - target))
                if bound is not None:
                    parameter.clamp_(target - bound, target + bound)


def _terms(network: nn.Module) -> dict[Tensor, tuple[str, float]]:
    """Return for each quadratic parameter whether it is of a gate or a power term, and its value in linear networks."""
    found: dict[Tensor, tuple[str, float]] = {}
    for layer in network.modules():
        if not isinstance(layer, _Quadratic):
            continue
        found.update(dict.fromkeys(layer.power.parameters(), ("power", 0.0)))
        if layer.gate is not None:
            found.update(
                {parameter: ("gate", float(name == "bias")) for name, parameter in layer.gate.named_parameters()}
            )
    return found


def _check_rates(trainer: Trainer) -> None:
    for optimizer in trainer.optimizers:
        rates = [(group["relinear"], float(group["lr"])) for group in optimizer.param_groups if "relinear" in group]
        base = next((rate for factor, rate in rates if factor == 1.0), None)
        wrong = [rate for factor, rate in rates if base is not None and not math.isclose(rate, factor * base)]
        if wrong:
            raise ValueError(
                f"a learning rate of quadratic terms is {wrong[0]:g} where that of the rest is {base:g}: the scheduler "
                "has set the rates of the groups; use one that multiplies them, or give it a rate for each group"
            )
