"""A training step waits for nothing that the GPU computes."""

import pytest
import torch

from tests.gpu.families import FAMILIES, build, trainer

# lengths of packed sequences are read on the host, once a call
PACKED = ("graph RNN", "masked RNN")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PACKED])
def test_a_training_step_waits_for_nothing(family, without_waiting, device):
    task, data = build(family)
    step, steps = task.training_step, []

    def checked(*arguments):
        steps.append(len(steps))
        if len(steps) < 3:  # what is made once, in the first steps, may wait
            return step(*arguments)
        with without_waiting():
            return step(*arguments)

    task.training_step = checked
    epochs = 5 if family == "nodes" else 1  # one batch an epoch
    trainer(device, max_epochs=epochs, limit_val_batches=0, log_every_n_steps=1000).fit(task, data)
    assert len(steps) > 3


@pytest.mark.parametrize("family", ["graphs", "images", "table"])
def test_backward_and_optimiser_wait_for_nothing(family, without_waiting, device):
    task, data = build(family)
    data.load()
    network = task.model.to(device)
    batch = data.transformed(data.store.to(device).take(data.splits["train"][:32]), "train")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    for attempt in range(3):
        with without_waiting() if attempt == 2 else torch.enable_grad():
            loss = task.step(batch, "train").loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("family", ["TGN", "JODIE"])
def test_a_stream_is_read_and_remembered_without_waiting(family, without_waiting, device):
    task, data = build(family)
    data.load()
    network, store = task.model.to(device), data.store.to(device)
    batch = next(iter(data.loader("train"))).to(device)
    batch = type(batch)(**{**vars(batch), "history": store.history})
    with torch.no_grad():
        for attempt in range(3):
            with without_waiting() if attempt == 2 else torch.no_grad():
                network.commit(network.forward_with_update(batch)[1])
