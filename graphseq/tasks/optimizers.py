"""Optimisers and schedulers of tasks, built from callables and checked, also for the precision of the parameters."""

from typing import Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from graphseq.core import Undecayed

__all__: list[str] = []

_HALF_EPSILON = 1e-4
"""Least term beside the root of a mean square in float16, where squares below 6e-8 are 0."""


def check_callables(
    optimizer: OptimizerCallable | None,
    scheduler: LRSchedulerCallable | None,
    scheduler_interval: Literal["epoch", "step"],
) -> None:
    """Check the arguments of a task that define its optimiser and scheduler.

    Args:
        optimizer: callable from parameters to an optimiser; None for the default.
        scheduler: callable from the optimiser to a scheduler; None for no scheduler.
        scheduler_interval: whether the scheduler steps once per ``epoch`` or once per ``step``.

    Raises:
        TypeError: if ``optimizer`` or ``scheduler`` cannot be called.
        ValueError: if ``scheduler_interval`` is another value.

    Example:
        >>> check_callables(torch.optim.Adam, None, "epoch")
    """
    for name, value in (("optimizer", optimizer), ("scheduler", scheduler)):
        if value is not None and not callable(value):
            raise TypeError(
                f"{name} is {value!r}; give a callable such as functools.partial(torch.optim.Adam, lr=1e-3)"
            )
    if scheduler_interval not in ("epoch", "step"):
        raise ValueError(f"scheduler_interval is {scheduler_interval!r}; it must be 'epoch' or 'step'")


def build_optimizer(
    optimizer: OptimizerCallable | None, parameters: list[nn.Parameter], model: nn.Module
) -> torch.optim.Optimizer:
    """Return the optimiser of some parameters; those that layers exempt from weight decay have groups without it.

    Args:
        optimizer: callable from parameters to an optimiser; None for ``torch.optim.Adam`` with its own defaults (with
            eps=1e-4 in float16).
        parameters: parameters to optimise, at least one.
        model: network that the parameters belong to, see :class:`graphseq.core.Undecayed`.

    Raises:
        ValueError: if there are no parameters, or epsilon is too small for float16.
        TypeError: if the callable does not return an optimiser.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> build_optimizer(None, list(net.parameters()), net).param_groups[0]["lr"]
        0.001
    """
    if not parameters:
        raise ValueError(f"no parameter of {type(model).__name__} requires a gradient; there is nothing to train")
    built = torch.optim.Adam(parameters) if optimizer is None else optimizer(parameters)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(f"optimizer returned a {type(built).__name__}; it must return a torch.optim.Optimizer")
    check_epsilon(built, replace=optimizer is None)
    _exempt(built, model)
    return built


def _exempt(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Move the parameters that layers exempt from weight decay into groups of their own, with the other options."""
    layers = [layer for layer in model.modules() if isinstance(layer, Undecayed)]
    exempt = {id(getattr(layer, name)) for layer in layers for name in layer.undecayed}
    for group in list(optimizer.param_groups):
        free = [parameter for parameter in group["params"] if id(parameter) in exempt]
        if not free or not group.get("weight_decay"):
            continue
        if len(free) == len(group["params"]):
            group["weight_decay"] = 0.0
            continue
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in exempt]
        optimizer.add_param_group({**group, "params": free, "weight_decay": 0.0})


def build_scheduler(
    scheduler: LRSchedulerCallable | None, optimizer: torch.optim.Optimizer
) -> LRScheduler | ReduceLROnPlateau | None:
    """Return the scheduler of an optimiser; None if there is no scheduler.

    Args:
        scheduler: callable from the optimiser to a scheduler; None for no scheduler.
        optimizer: the optimiser.

    Raises:
        TypeError: if the callable does not return a scheduler.

    Example:
        >>> adam = torch.optim.Adam([nn.Parameter(torch.ones(1))])
        >>> build_scheduler(None, adam) is None
        True
    """
    if scheduler is None:
        return None
    built = scheduler(optimizer)
    if not isinstance(built, LRScheduler | ReduceLROnPlateau):
        raise TypeError(f"scheduler returned a {type(built).__name__}; it must return a torch LRScheduler")
    return built


def step_schedulers(
    task: LightningModule, interval: Literal["epoch", "step"], monitor: str, *, epoch_end: bool = False
) -> None:
    """Step the schedulers of a task that steps its optimisers by hand; to be called after each batch and each epoch.

    Schedulers of epochs are stepped with the last batch, since a run that is resumed from its last batch does not come
    to the end of that epoch. Those that watch a value are stepped at the end of the epoch, where it is known.

    Args:
        task: task in a run.
        interval: whether schedulers step once per ``epoch`` or once per ``step``.
        monitor: name of the value to watch, for a ``ReduceLROnPlateau`` that names none.
        epoch_end: whether this is the end of an epoch, after validation.

    Example:
        >>> class Unscheduled(LightningModule):
        ...     def lr_schedulers(self):
        ...         return None
        >>> step_schedulers(Unscheduled(), "epoch", "val/loss")
    """
    found = task.lr_schedulers()
    for scheduler in found if isinstance(found, list) else [] if found is None else [found]:
        if isinstance(scheduler, ReduceLROnPlateau):
            value = task.trainer.callback_metrics.get(vars(scheduler).get("monitor", monitor))
            if value is not None and epoch_end == (interval == "epoch"):
                scheduler.step(value)
        elif not epoch_end and (interval == "step" or task.trainer.is_last_batch):
            scheduler.step()


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
