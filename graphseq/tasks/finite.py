"""Training losses that become NaN or infinite: recorded on the device, reported with the first bad parameter."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

__all__: list[str] = []


def note_bad_loss(first: Tensor, loss: Tensor, batch_idx: int) -> None:
    """Record the number of the first batch whose loss is not finite, without a device synchronisation.

    Args:
        first: number of the first such batch, or -1; int64 scalar, written in place.
        loss: loss of a batch.
        batch_idx: number of the batch in its epoch.

    Example:
        >>> first = torch.tensor(-1)
        >>> note_bad_loss(first, torch.tensor(float("nan")), 7)
        >>> int(first)
        7
    """
    fresh = (first < 0) & ~torch.isfinite(loss.detach())
    first.copy_(torch.where(fresh, batch_idx, first))


def stop_at_bad_loss(task: LightningModule, first: Tensor) -> None:
    """Raise if a loss that is not finite was recorded; this synchronises with the device.

    Args:
        task: task whose parameters are searched for the first one that is not finite.
        first: scalar that :func:`note_bad_loss` wrote; it is reset to -1.

    Raises:
        FloatingPointError: if a loss was not finite.

    Example:
        >>> stop_at_bad_loss(LightningModule(), torch.tensor(-1))
    """
    batch_idx = int(first)
    if batch_idx < 0:
        return
    first.fill_(-1)
    bad = (name for name, value in task.named_parameters() if not bool(torch.isfinite(value).all()))
    name = next(bad, None)
    where = (
        f"the first parameter with such a value is {name}" if name else "all parameters are finite, so look at the data"
    )
    running = task._trainer is not None
    raise FloatingPointError(
        f"the training loss became NaN or infinite in epoch {task.current_epoch if running else 0}, "
        f"batch {batch_idx}, step {task.global_step if running else 0}; {where}. "
        "Lower the learning rate or clip gradients; stop_on_nonfinite=False continues regardless"
    )
