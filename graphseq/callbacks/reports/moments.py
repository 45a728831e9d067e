"""Mean and variance of the layers of a self-normalising network, compared with the values that the theory predicts."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.nn.activations.self_normalizing import SELU
from graphseq.ops.activations.self_normalizing import SELU_ALPHA, SELU_SCALE, moment_map

__all__ = ["MomentMonitor"]


class MomentMonitor(Callback):
    r"""Log the moments of every SELU layer in training, and whether its weights meet the fixed-point conditions.

    For each linear or convolutional layer whose output goes straight into a SELU it logs, every few steps, under
    ``moments/<layer>/``:

    * ``mean``, ``var`` of the activations over units and samples, and ``predicted_mean``, ``predicted_var``, what
      :func:`graphseq.ops.moment_map` gives for each unit from the moments of the layer's inputs and the sums of its
      weights, averaged over units in the same way;
    * ``weight_sum`` (largest absolute sum of a unit's weights), ``weight_square_sum_min`` and ``_max``;
    * ``inside``: share of the units whose sums lie where Theorem 1 holds, sums in [-0.1, 0.1] and sums of squares in
      [0.95, 1.1]. Training moves units out; with fewer than about 30 inputs, few units start inside.

    It reads the activations of the forward pass in logged steps only, each of which synchronises with the device once;
    gradients and random numbers are unchanged. The most recent values are also in ``values``, by the same names.

    Source: arXiv 1706.02515, Theorem 1 and eq. 4, 5.

    Args:
        every_n_steps: number of training steps from one logged step to the next, at least 1.

    Raises:
        ValueError: if ``every_n_steps`` is below 1; at the start of training, if the network has no SELU.

    Example:
        >>> MomentMonitor(every_n_steps=10).every_n_steps
        10
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps = every_n_steps
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._last: tuple[str, nn.Module, Tensor, Tensor] | None = None  # name, layer, its input and its output
        self._found: dict[str, Tensor] = {}
        self.values: dict[str, float] = {}
        self._watching = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the forward hooks."""
        selus = [layer for layer in pl_module.modules() if isinstance(layer, SELU | nn.SELU)]
        if not selus:
            raise ValueError(f"{type(pl_module).__name__} has no SELU layer; MomentMonitor watches networks with SELU")
        for name, layer in pl_module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                self._handles.append(layer.register_forward_hook(self._remember(name)))
        self._handles += [layer.register_forward_hook(self._compare) for layer in selus]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Collect activations in this step if it is to be logged."""
        self._watching = trainer.global_step % self.every_n_steps == 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Log the moments of this step."""
        if self._found:
            # straight to the loggers: LightningModule.log repeats a value in the steps that follow
            self.values = dict(zip(self._found, torch.stack(list(self._found.values())).tolist(), strict=True))
            for logger in trainer.loggers:
                logger.log_metrics(self.values, step=trainer.global_step - 1)
        self._found, self._last, self._watching = {}, None, False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the forward hooks."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the forward hooks."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._last, self._found, self._watching = [], None, {}, False

    def _remember(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._watching and layer.training:
                self._last = (name, layer, inputs[0], output)

        return hook

    @torch.no_grad()
    def _compare(self, selu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._last is None or self._last[3] is not inputs[0]:
            return  # something stands between the two
        name, layer, x, _ = self._last
        self._last = None
        weight = layer.weight.double().flatten(1)  # type: ignore[operator]
        sums, squares = weight.sum(1), weight.square().sum(1)  # (units,)
        x, y = x.double(), output.double()
        parameters = {"alpha": getattr(selu, "alpha", SELU_ALPHA), "scale": getattr(selu, "scale", SELU_SCALE)}
        mean, var = moment_map(x.mean(), x.var(correction=0), sums, squares, **parameters)
        inside = (sums.abs() <= 0.1) & (squares >= 0.95) & (squares <= 1.1)
        values = {
            "mean": y.mean(),
            "var": y.var(correction=0),
            "predicted_mean": mean.mean(),
            "predicted_var": var.mean() + mean.var(correction=0),  # over units and samples, as the measured one
            "weight_sum": sums.abs().max(),
            "weight_square_sum_min": squares.min(),
            "weight_square_sum_max": squares.max(),
            "inside": inside.double().mean(),
        }
        self._found.update({f"moments/{name}/{key}": value.float() for key, value in values.items()})
