"""Dynamic sparse training: connections of sparse layers are removed and added as the network learns."""

import itertools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.callbacks.files import save_figure
from graphseq.callbacks.reports.connectivity import draw_mask_evolution
from graphseq.core.errors import CheckpointError, UnsupportedStrategyError
from graphseq.nn import RewirableLayer
from graphseq.sparsity import (
    RunningCorrelation,
    drop_fraction,
    gradient_score,
    magnitude_score,
    random_score,
    rewire_mask,
)

__all__ = ["DynamicSparse"]

Prune = Literal["set", "random", "hebb", "mix"]
Grow = Literal["random", "hebb", "gradient"]


class DynamicSparse(Callback):
    r"""Replace a share of the connections of all sparse layers every few steps; their number is kept.

    Rules for the connections that are removed: ``set``, those of smallest magnitude; ``random``; ``hebb``, those of
    weakest correlation between the units that they join; ``mix``, a third by each of the three. Rules for the
    connections that are added, among those that do not exist: ``random``; ``hebb``, those of strongest correlation;
    ``gradient``, those of largest absolute gradient. New weights start at zero, and so do their moments in the
    optimiser; everything else is unchanged, bit for bit. In layers that store inputs of groups (``column``), a
    connection is such an input, with the norm of its weights or gradients, or its mean correlation with the units of
    the group.

    The correlation :math:`|\rho_{ji}|` is that of the layer's input with its output, after the activation where layer
    and activation follow one another in an ``nn.Sequential``; it is gathered in the steps before each update. It is
    centred: the cosine of non-negative activations would favour units of high mean activity.

    Source: arXiv 2508.14140; ``set`` with ``random`` is arXiv 1707.04780, ``set`` with ``gradient`` is arXiv
    1911.11134. Differs from the first: budgets of pairs of groups are kept, so that groups do not dissolve; statistics
    are of many batches; connections that were just removed are not added again in the same update; moments are reset.

    Files:
        ``mask_evolution.png`` in the folder of the logger, when training ends.

    Args:
        prune: rule for the connections that are removed: ``set``, ``random``, ``hebb`` or ``mix``.
        grow: rule for the connections that are added: ``random``, ``hebb`` or ``gradient``.
        fraction: share of the connections that an update replaces, in [0, 1].
        every: number of optimiser steps from one update to the next, at least 1.
        stop: share of the training after which connections are no longer replaced, in (0, 1].
        decay: schedule of ``fraction`` until then: ``constant``, ``cosine`` or ``linear``.
        preserve: where the number of connections is kept: in each ordered pair of groups (``group_pair``), or only in
            the whole layer (``total``). Layers without groups are one group.
        window: number of steps before an update in which correlations are gathered, at least 1.
        stat_ema: decay factor in (0, 1) of an exponential moving average over these batches; None for equal weights.
        seed: seed of the random choices of connections.

    Raises:
        ValueError: if an argument is outside its range; at the start of training, if the network has no sparse layer or
            the number of steps is unknown.
        TypeError: after the first step, if the optimiser keeps a state that is not per weight, such as that of
            Adafactor.
        CheckpointError: when a run is resumed, if layers or connections differ from those of the checkpoint.
        UnsupportedStrategyError: at the start of a run with several processes.

    Example:
        >>> DynamicSparse(prune="set", grow="gradient", fraction=0.3, every=100, decay="cosine").history
        []
    """

    def __init__(
        self,
        prune: Prune = "set",
        grow: Grow = "random",
        fraction: float = 0.025,
        every: int = 1000,
        stop: float = 0.75,
        decay: Literal["constant", "cosine", "linear"] = "constant",
        preserve: Literal["group_pair", "total"] = "group_pair",
        window: int = 20,
        stat_ema: float | None = 0.99,
        seed: int = 0,
    ) -> None:
        choices: list[tuple[str, str, Sequence[str]]] = [
            ("prune", prune, ("set", "random", "hebb", "mix")),
            ("grow", grow, ("random", "hebb", "gradient")),
            ("preserve", preserve, ("group_pair", "total")),
        ]
        for name, value, allowed in choices:
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        for name, number in {"every": every, "window": window}.items():
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction is {fraction}; it must be in [0, 1]")
        if not 0.0 < stop <= 1.0:
            raise ValueError(f"stop is {stop}; it must be in (0, 1]")
        drop_fraction(0.0, fraction, decay)
        RunningCorrelation(1, 1, stat_ema)
        self.prune, self.grow, self.fraction, self.every = prune, grow, fraction, every
        self.stop, self.decay, self.preserve = stop, decay, preserve
        self.window, self.stat_ema = min(window, every), stat_ema
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.history: list[dict[str, Any]] = []
        self._layers: dict[str, Any] = {}
        self._statistics: dict[str, RunningCorrelation] = {}
        self._gradients: dict[str, Tensor] = {}
        self._initial: dict[str, Tensor] = {}
        self._restored: dict[str, Any] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._inputs: dict[str, Tensor] = {}
        self._last, self._seen, self._checked = 0.0, 0, False

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, the generator, the history and the statistics gathered so far."""
        return {
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "history": [dict(entry) for entry in self.history],
            "initial": dict(self._initial),
            "connections": {name: _checksum(layer) for name, layer in self._layers.items()},
            "statistics": {name: dict(found.state_dict()) for name, found in self._statistics.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; layers are compared with it when training starts.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.steps = int(state_dict["steps"])
        self.generator.set_state(state_dict["generator"].cpu())
        self.history = [dict(entry) for entry in state_dict["history"]]
        self._restored = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse several processes, whose statistics and masks would differ."""
        if stage == "fit" and trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"DynamicSparse runs on one process, {trainer.world_size} were given: each would choose its own "
                "connections; set devices=1"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sparse layers, compare them with a resumed state, and register the hooks."""
        layers = {name: layer for name, layer in pl_module.named_modules() if isinstance(layer, RewirableLayer)}
        if not layers:
            raise ValueError(
                f"{type(pl_module).__name__} has no sparse layer; DynamicSparse rewires GroupToGroupLinear, ERLinear "
                "and MaskedLinear"
            )
        self._layers = layers
        for layer in layers.values():
            layer.budgets(self.preserve)
        total = float(trainer.estimated_stepping_batches)
        if total == float("inf") and (self.stop < 1.0 or self.decay != "constant"):
            raise ValueError(
                f"stop is {self.stop} and decay {self.decay!r}, shares of a training whose length is unknown; set "
                "max_epochs, or stop=1 and decay='constant'"
            )
        self._last = self.stop * total
        self._compare(self._restored)
        kept = self._restored.get("initial", {})
        self._initial = {name: kept.get(name, layer.connections()).cpu().clone() for name, layer in layers.items()}
        if "hebb" in (self.prune, self.grow) or self.prune == "mix":
            for name, layer in layers.items():
                found = RunningCorrelation(layer.in_features, layer.out_features, self.stat_ema)
                if name in self._restored.get("statistics", {}):
                    found.load_state_dict(self._restored["statistics"][name])
                self._statistics[name] = found.to(pl_module.device)
        self._restored = {}
        self._seen = trainer.global_step
        self._hook(pl_module)

    def _compare(self, state: dict[str, Any]) -> None:
        """Refuse a state whose layers or connections are others."""
        saved = state.get("connections")
        if not saved:
            return
        if set(saved) != set(self._layers):
            raise CheckpointError(
                f"the checkpoint rewired the layers {', '.join(sorted(saved))}; the network has "
                f"{', '.join(sorted(self._layers))}"
            )
        different = [name for name, layer in self._layers.items() if saved[name] != _checksum(layer)]
        if different:
            raise CheckpointError(
                f"the connections of {', '.join(different)} are not those with which the checkpoint was written; "
                "resume with the network and the masks of the checkpoint"
            )

    # what is gathered

    def _hook(self, task: nn.Module) -> None:
        followers = _followers(task)
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._remember(name)))
            if name in self._statistics:
                self._handles.append(followers.get(layer, layer).register_forward_hook(self._correlate(name)))

    def _update_after(self, step: int) -> bool:
        return step % self.every == 0 and step < self._last

    def _watches_correlation(self) -> bool:
        step = self.steps + 1
        due = -(-step // self.every) * self.every
        return due - step < self.window and due < self._last

    def _remember(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not layer.training or not torch.is_grad_enabled():
                return
            self._inputs[name] = inputs[0].detach()
            if self.grow == "gradient" and self._update_after(self.steps + 1) and output.requires_grad:
                output.register_hook(self._accumulate(name, inputs[0].detach()))

        return hook

    def _accumulate(self, name: str, x: Tensor) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            rows = grad.detach().reshape(-1, grad.size(-1)).to(x.dtype)
            dense = rows.t() @ x.reshape(-1, x.size(-1))  # (out_features, in_features), in these steps only
            self._gradients[name] = self._gradients[name] + dense if name in self._gradients else dense

        return hook

    def _correlate(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self._inputs and self._watches_correlation():
                self._statistics[name].update(self._inputs.pop(name), output)

        return hook

    # update

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Count the step of the optimiser, and rewire if it is time."""
        self._inputs.clear()
        if trainer.global_step == self._seen:
            return  # gradients are still accumulated
        self._seen = trainer.global_step
        self.steps += 1
        if not self._checked:
            _check_moments(trainer.optimizers, self._layers)
            self._checked = True
        if not self._update_after(self.steps):
            return
        fraction = drop_fraction(min(self.steps / self._last, 1.0), self.fraction, self.decay)
        rewired, overlap = [], []
        for name, layer in self._layers.items():
            changed = self._rewire(name, layer, fraction, trainer.optimizers)
            rewired.append(changed / max(1, int(layer.connections().sum())))
            first = self._initial[name].to(layer.connections().device)
            overlap.append(float((layer.connections() & first).sum() / first.sum()))
        self.history.append({"step": self.steps, "rewired": rewired, "overlap": overlap})
        self._gradients.clear()
        for statistics in self._statistics.values():
            statistics.reset()

    @torch.no_grad()
    def _rewire(self, name: str, layer: Any, fraction: float, optimizers: Sequence[torch.optim.Optimizer]) -> int:
        connections = layer.connections()
        rules = ("set", "random", "hebb") if self.prune == "mix" else (self.prune,)
        prune = [self._score(rule, name, layer, connections) for rule in rules]
        grow = self._score(self.grow, name, layer, connections)
        found = rewire_mask(connections, prune, grow, fraction, layer.budgets(self.preserve), self.generator)
        for parameter_name, source in layer.rewire(found.mask).items():
            _move_moments(optimizers, getattr(layer, parameter_name), source)
        return int(found.grown.sum())

    def _score(self, rule: str, name: str, layer: Any, connections: Tensor) -> Tensor:
        if rule == "random":
            return random_score(connections, self.generator)
        if rule == "hebb":
            return layer.pool(self._statistics[name].correlation().abs(), "mean")
        if rule == "gradient":
            dense = self._gradients.get(name)
            if dense is None:  # the layer took no part in this step
                return torch.zeros_like(connections, dtype=torch.float32)
            return layer.pool(gradient_score(dense), "norm")
        return layer.pool(magnitude_score(layer.dense_weight()), "norm")

    # end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the history and remove the hooks."""
        folder = trainer.log_dir  # asked of every process: it is broadcast
        if self.history and trainer.is_global_zero and trainer.loggers and folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = Path(folder) / "mask_evolution.png"
            save_figure(draw_mask_evolution(self.history, list(self._layers)), path)
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the hooks."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._inputs.clear()


def _checksum(layer: Any) -> int:
    return zlib.crc32(layer.connections().cpu().contiguous().numpy().tobytes())


def _followers(task: nn.Module) -> dict[nn.Module, nn.Module]:
    """Return the activation after each layer, where both stand in an ``nn.Sequential``."""
    found: dict[nn.Module, nn.Module] = {}
    for module in task.modules():
        if isinstance(module, nn.Sequential):
            children = list(module)
            for layer, after in itertools.pairwise(children):
                if not any(True for _ in after.parameters()):
                    found[layer] = after
    return found


def _moments(optimizers: Sequence[torch.optim.Optimizer], parameter: Tensor) -> list[tuple[str, Tensor]]:
    return [
        (key, value)
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor) and value.dim() > 0
    ]


def _check_moments(optimizers: Sequence[torch.optim.Optimizer], layers: dict[str, Any]) -> None:
    """Refuse an optimiser whose state cannot follow single weights."""
    for name, layer in layers.items():
        for parameter in layer.parameters():
            for key, value in _moments(optimizers, parameter):
                if value.shape != parameter.shape:
                    kinds = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
                    raise TypeError(
                        f"{kinds} keeps {key} of shape {tuple(value.shape)} for a parameter of {name} of shape "
                        f"{tuple(parameter.shape)}; rewiring resets the moments of single weights, which Adam, AdamW, "
                        "RMSprop and SGD keep"
                    )


def _move_moments(optimizers: Sequence[torch.optim.Optimizer], parameter: Tensor, source: Tensor) -> None:
    """Let the moments of a parameter follow its entries; those of new entries become zero."""
    flat = source.flatten()
    for _, value in _moments(optimizers, parameter):
        entries = value.flatten(0, source.dim() - 1)
        moved = entries[flat.clamp(min=0)]
        moved[flat < 0] = 0
        value.copy_(moved.view(value.shape))
