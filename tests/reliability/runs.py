"""Small training runs that the reliability tests share, importable by child processes."""

import functools
import logging
import warnings

import lightning
import torch
from torch_geometric.data import Data

from graphseq.data import GraphDataModule
from graphseq.models import GraphClassifier
from graphseq.tasks import Classification

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def graphs(count=60, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    out = []
    for position in range(count):
        nodes = 4 + position % 4
        edge_index = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
        x = torch.rand(nodes, 3, generator=generator, dtype=torch.float64).to(dtype)
        x[:, 0] += position % 3
        out.append(Data(x=x, edge_index=edge_index, y=torch.tensor([position % 3])))
    return out


def build(norm="batch", conv="gin", dropout=0.3, dtype=torch.float32, batch_size=8, seed=0):
    """A task with everything that draws random numbers or has a state: dropout, shuffling, batch norm, scheduler."""
    lightning.seed_everything(seed, verbose=False)
    data = GraphDataModule(graphs(dtype=dtype), split="stratified", batch_size=batch_size)
    model = GraphClassifier(3, 3, hidden_channels=8, num_layers=2, conv=conv, norm=norm, dropout=dropout).to(dtype)
    task = Classification(
        model,
        3,
        optimizer=functools.partial(torch.optim.Adam, lr=0.01),
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5),
        scheduler_interval="step",
    )
    return task, data


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,  # a fifth of the time of so short a run; tests of that check ask for it
    }
    return lightning.Trainer(**{"max_epochs": 3, "accelerator": "cpu", "devices": 1, **quiet, **options})


def weights(task):
    return {name: value.clone() for name, value in task.state_dict().items()}
