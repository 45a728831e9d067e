"""Parts of what is timed: steps of training, gradients, waiting for batches, moving batches to a device."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphseq.bench.quiet import bare_trainer
from graphseq.bench.speeds.timing import exhaust

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

__all__ = ["Moved", "Waiting", "differentiated", "train_steps", "trainer_overhead"]


def train_steps(
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    optimizer: torch.optim.Optimizer,
    after: Callable[[], object] | None = None,
) -> Iterator[Tensor]:
    """Train on each batch and yield its loss: loss, gradients, step of the optimiser.

    Args:
        batches: batches of one epoch.
        loss_of: function of a batch that returns its loss.
        optimizer: optimiser of the parameters.
        after: call without arguments after each step; None for nothing.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> optimizer = torch.optim.SGD([weight], lr=0.5)
        >>> [float(loss) for loss in train_steps([1.0, 1.0], lambda x: ((weight - x) ** 2).sum(), optimizer)]
        [1.0, 0.0]
    """
    for batch in batches:
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after is not None:
            after()
        yield loss.detach()


def differentiated(
    function: Callable[[Tensor], Tensor], values: Tensor, backward: bool = True
) -> Callable[[], list[Tensor]]:
    """Return a call that gives the output of a function and its gradient, for the same incoming gradient each time.

    Args:
        function: function of a tensor of the shape of ``values``.
        values: floating-point input, which is copied.
        backward: whether the call differentiates; if not, it returns the output alone.

    Example:
        >>> differentiated(lambda x: x**2, torch.tensor([1.0, 3.0]))()
        [tensor([1., 9.]), tensor([-2.,  6.])]
    """
    leaf = values.clone().requires_grad_(backward)
    with torch.no_grad():
        output = function(leaf)
        incoming = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)

    def call() -> list[Tensor]:
        output = function(leaf)
        if not backward:
            return [output]
        return [output.detach(), *torch.autograd.grad(output, leaf, incoming)]

    return call


def trainer_overhead(
    task: "LightningModule", loader: Any, plain: Callable[[], Iterator[object]], steps: int, rounds: int
) -> float:
    """Return how many seconds a step under the Trainer takes more than one of a plain loop, in turn; the median.

    The start of the fit is left out.

    Args:
        task: task to fit on the CPU.
        loader: loader of its training batches.
        plain: function that starts an epoch of the plain loop; each item is a step.
        steps: number of steps of a round, at most those of an epoch.
        rounds: number of rounds, at least 1.

    Example:
        >>> trainer_overhead(task, loader, plain, steps=100, rounds=6)  # doctest: +SKIP
        0.0004
    """
    from lightning.pytorch import Callback

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = -time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds += time.perf_counter()

    more = []
    for _ in range(rounds):
        clock = Clock()
        with bare_trainer(max_epochs=1, limit_train_batches=steps, accelerator="cpu", callbacks=[clock]) as trainer:
            trainer.fit(task, train_dataloaders=loader)
        start = time.perf_counter()
        exhaust(islice(plain(), steps))
        more.append((clock.seconds - (time.perf_counter() - start)) / steps)
    return statistics.median(more)


class Waiting:
    """Batches of a loader, and the share of an epoch that passes while its loop waits for them.

    Args:
        loader: iterable of batches.

    Example:
        >>> waiting = Waiting([1, 2])
        >>> sum(waiting), 0 <= waiting.share <= 1
        (3, True)
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader, self.seconds, self.share = loader, 0.0, 0.0

    def __iter__(self) -> Iterator[Any]:
        self.seconds, begin = 0.0, time.perf_counter()
        start = begin
        for batch in self.loader:
            self.seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
        end = time.perf_counter()
        self.seconds += end - start
        self.share = self.seconds / (end - begin)


class Moved:
    """Batches of a loader, moved to a device.

    Args:
        loader: iterable of objects with a method ``to``, or of sequences of tensors, whose copies do not block.
        device: device of the batches.

    Example:
        >>> [batch for batch in Moved([[torch.ones(2)]], "cpu")]
        [[tensor([1., 1.])]]
    """

    def __init__(self, loader: Any, device: str) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, list | tuple):
                yield [part.to(self.device, non_blocking=True) for part in batch]
            else:
                yield batch.to(self.device)
