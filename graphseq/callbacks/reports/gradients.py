"""Norms of the gradients of each layer, over training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from graphseq.callbacks.files import save_figure
from graphseq.callbacks.reports.figures import _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GradientNormMonitor", "draw_gradient_norms"]

# of the palette viridis, dark for the last step
_SHADES = ("#bddf26", "#6ccd5a", "#1fa187", "#277f8e", "#365c8d", "#46327e")


class GradientNormMonitor(Callback):
    r"""Log the gradient norm of each layer of a stack, before gradient clipping.

    .. math:: g_\ell = \Bigl(\sum_{\theta \in \text{layer } \ell} \lVert \nabla_\theta L \rVert^2\Bigr)^{1/2}

    It is logged under ``gradients/<number of the layer>`` and kept in :attr:`history`, which checkpoints hold. A figure
    of the norms over the layers is written to the folder of the run at the end of training. Only steps that are logged
    synchronise with the device.

    Source: arXiv 2412.13795, section 2.2, where the norms tell which layers learn.

    Args:
        layers: dotted name in the task of the list of layers, such as ``model.layers.blocks``.
        every_n_steps: number of training steps from one logged step to the next, at least 1.
        figure: file name of the figure; None for no figure.

    Raises:
        ValueError: if ``every_n_steps`` is below 1; at the start of training, if ``layers`` matches nothing.

    Example:
        >>> GradientNormMonitor("model.layers.blocks").every_n_steps
        50
    """

    def __init__(
        self, layers: str = "model.layers.blocks", every_n_steps: int = 50, figure: str | None = "gradient_norms.png"
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; it must be at least 1")
        self.layers, self.every_n_steps, self.figure = layers, every_n_steps, figure
        self.history: list[dict[str, Any]] = []

    def _stack(self, pl_module: LightningModule) -> list[nn.Module]:
        try:
            found = list(pl_module.get_submodule(self.layers).children())
        except AttributeError:
            found = []
        if not found:
            stacks = [name for name, module in pl_module.named_modules() if isinstance(module, nn.ModuleList)]
            there = f"lists of modules are {', '.join(stacks)}" if stacks else "there is no list of modules"
            raise ValueError(f"layers is {self.layers!r}, which names no list of layers; {there}")
        return found

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there are layers, and forget an earlier run of this object."""
        self._stack(pl_module)
        if trainer.global_step == 0:
            self.history = []

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norms of this step."""
        if trainer.global_step % self.every_n_steps:
            return
        norms = []
        for layer in self._stack(pl_module):
            gradients = [weight.grad.float() for weight in layer.parameters() if weight.grad is not None]
            each = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(1, device=pl_module.device)
            norms.append(torch.linalg.vector_norm(each))
        values = torch.stack(norms).tolist()
        self.history.append({"step": trainer.global_step, "norms": values})
        for logger in trainer.loggers:
            named = {f"gradients/{place}": value for place, value in enumerate(values)}
            logger.log_metrics(named, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figure."""
        folder = trainer.log_dir
        if self.figure is not None and self.history and folder is not None and trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_figure(draw_gradient_norms(self.history), Path(folder) / self.figure)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.history = [dict(entry) for entry in state_dict["history"]]


def draw_gradient_norms(history: Sequence[dict[str, Any]]) -> "Figure":
    """Draw the gradient norms over the layers, for up to six of the logged steps.

    Args:
        history: ``step`` and ``norms`` of each logged step, as :class:`GradientNormMonitor` keeps them.

    Raises:
        ValueError: if ``history`` is empty.

    Example:
        >>> draw_gradient_norms([{"step": 0, "norms": [0.5, 0.1]}]).axes[0].get_xlabel()
        'layer'
    """
    if not history:
        raise ValueError("history is empty; there was no step to draw")
    figure, (axes,) = _figure()
    places = sorted({round(place * (len(history) - 1) / 5) for place in range(6)})
    for number, place in enumerate(places):
        entry = history[place]
        colour = _SHADES[len(_SHADES) - len(places) + number]
        axes.plot(range(1, len(entry["norms"]) + 1), entry["norms"], marker=".", color=colour, label=f"{entry['step']}")
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("norm of the gradient")
    axes.legend(title="step", frameon=False, fontsize=8)
    return figure
