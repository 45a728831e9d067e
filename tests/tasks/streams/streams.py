"""A small stream, networks over it, and their runs: what the tests of procedures over streams share."""

import functools
import logging
import warnings

import lightning
import torch

from graphseq.data import SyntheticEventsDataModule
from graphseq.models import JODIE, TGN, DyRep
from graphseq.nn import PRESCorrector
from graphseq.tasks import TemporalLinkPrediction
from tests.reliability.runs import trainer

__all__ = ["build", "events", "network", "same", "state", "trainer", "weights"]

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def events(**options):
    """700 events in batches of 70: 7 of training, 2 each of validation and test at batches of 60."""
    given = {"num_events": 700, "num_sources": 25, "num_destinations": 12, "batch_size": 70, "eval_batch_size": 60}
    return SyntheticEventsDataModule(**{**given, **options})


def network(kind, data):
    sizes = {"memory_dim": 8, "time_dim": 6}
    if kind == "jodie":
        return JODIE(data.num_nodes, data.num_edge_features, data.time_statistics, **sizes)
    if kind == "dyrep":
        return DyRep(data.num_nodes, data.num_edge_features, num_neighbors=3, dropout=0.3, **sizes)
    if kind == "pres":
        corrector = PRESCorrector(gamma_init=0.6, rate="time")
        return JODIE(data.num_nodes, data.num_edge_features, corrector=corrector, mean_gap=data.mean_gap, **sizes)
    return TGN(data.num_nodes, data.num_edge_features, num_neighbors=3, embedding_dim=8, dropout=0.3, **sizes)


def build(kind="tgn", seed=0, lr=0.01, data=None, **options):
    """A task with all that draws random numbers or has a state, and its stream."""
    lightning.seed_everything(seed, verbose=False)
    data = events() if data is None else data
    task = TemporalLinkPrediction(
        network(kind, data),
        optimizer=functools.partial(torch.optim.Adam, lr=lr),
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=4, gamma=0.5),
        scheduler_interval="step",
        **options,
    )
    return task, data


def weights(task):
    """Weights and state, copied: memory, mail and moments are buffers."""
    return {name: value.clone() for name, value in task.state_dict().items()}


def state(task):
    return task.network.state_buffers()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
