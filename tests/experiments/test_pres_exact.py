"""Rounds of a batch are what single events in order would be."""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from experiments.pres.exact import ExactWithinBatch, rounds
from graphseq.data import SyntheticEventsDataModule
from graphseq.models import JODIE


def parts(batch):
    """The batch one event at a time."""
    for place in range(len(batch)):
        columns = {name: value[place : place + 1] for name, value in vars(batch).items() if isinstance(value, Tensor)}
        yield replace(batch, **columns, start=batch.start + place, stop=None)


def test_one_step_over_rounds_equals_single_events():
    data = SyntheticEventsDataModule(num_events=300, num_sources=12, num_destinations=9, batch_size=80)
    torch.manual_seed(0)
    network = JODIE(data.num_nodes, memory_dim=8, time_dim=4)
    task, single = ExactWithinBatch(network), copy.deepcopy(network)
    for batch in data.batches("train"):
        loss = task.step(batch).loss
        found = []
        for event in parts(batch):
            logits, update = single.forward_with_update(event)
            single.commit(update)
            found.append(logits)
        logits = torch.cat(found)
        expected = (
            torch.nn.functional.softplus(-logits[:, 0]).mean() + torch.nn.functional.softplus(logits[:, 1:]).mean()
        )
        torch.testing.assert_close(loss, expected)
        assert len(list(rounds(batch))) < len(batch)
    for name, buffer in single.state_buffers().items():
        torch.testing.assert_close(network.state_buffers()[name], buffer)
    loss.backward()
    expected.backward()
    for one, other in zip(network.parameters(), single.parameters(), strict=True):
        # sums of float32 in another order, over encoded times that reach thousands
        torch.testing.assert_close(one.grad, other.grad, rtol=2e-3, atol=1e-3)


def test_evaluation_is_that_of_the_plain_task():
    data = SyntheticEventsDataModule(num_events=300, batch_size=80)
    torch.manual_seed(0)
    network = JODIE(data.num_nodes, memory_dim=8, time_dim=4)
    task, batch = ExactWithinBatch(network), next(iter(data.batches("val")))
    expected = copy.deepcopy(network)(batch)
    torch.testing.assert_close(task.step(batch, "val").prediction, expected)
