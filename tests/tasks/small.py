"""Small tasks and batches that the tests of this folder share, importable by name as a user's are."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from graphseq.core import Recorded
from graphseq.tasks import Step, Task
from tests.reliability.runs import trainer


class Fit(Task):
    """A user's procedure: its constructor has no types, builds the network, and saves hyperparameters out of habit."""

    def __init__(self, width, depth=1, **kwargs):
        super().__init__(nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]), **kwargs)
        self.save_hyperparameters()
        self.save_hyperparameters("width", ignore=["depth"])

    def step(self, batch, stage="train"):
        y = batch[1]
        prediction = self(batch)
        return Step((prediction - y).square().sum(1).mean(), prediction, y, len(y))


class Partial(Fit):
    """A user's procedure that takes checkpoints with less or more in them."""

    def __init__(self, width, depth=1):
        super().__init__(width, depth)
        self.strict_loading = False


class Probe(Recorded, nn.Module):
    """A network of one weight matrix."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, x):
        return self.linear(x)


class Given(nn.Module):
    """Outputs that are handed in, as a parameter, to see their gradient."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, x):
        return self.outputs


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def sgd_with(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr)


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def frozen_sgd(parameters):
    """Steps of length 0: every batch of an epoch meets the same weights."""
    return torch.optim.SGD(parameters, lr=0.0)


def rows(*sizes, width=3, seed=0):
    """Batches (x, y) of the given sizes."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, size, width, generator=generator)) for size in sizes]


def loader(batches):
    """A loader of batches that are there already; Lightning takes a list of them for several loaders."""
    return DataLoader(batches, batch_size=None)


def fit(task, train, val=None, **options):
    run = trainer(**{"max_epochs": 1, **options})
    run.fit(task, loader(train), None if val is None else loader(val))
    return run


def validate(task, batches):
    return trainer().validate(task, loader(batches), verbose=False)[0]


def close(tensor, expected, atol=1e-12):
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol)
