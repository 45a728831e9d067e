"""Networks over event streams: operations of the device give what compiled loops give, in mixed precision nearly."""

import copy

import pytest
import torch

from graphseq.ops import processor
from tests.gpu.families import STREAMS, build, trainer


def test_compiled_loops_are_off_on_an_accelerator(device):
    if device.type == "cpu":
        pytest.skip("compiled loops are those of the processor")
    assert not processor.use_compiled(torch.ones(3, device=device))
    assert not processor.reads_are_free(device)


@pytest.mark.parametrize("family", STREAMS)
def test_logits_memories_and_gradients_are_those_of_the_host(family, device, monkeypatch):
    task, data = build(family)
    data.load()
    host = task.model.double().eval()
    there = copy.deepcopy(host).to(device)
    history = data.store.to(device).history
    batches = list(data.loader("train"))[:6]
    results = []
    for network, move in ((host, False), (there, True)):
        if move and device.type == "cpu":  # the way of accelerators, on a processor
            monkeypatch.setattr(processor, "_numba_imports", lambda: False)
        network.reset_state()
        outputs = []
        for batch in batches:
            batch = type(batch)(**{**vars(batch), "msg": batch.msg.double()})
            if move:
                batch = batch.to(device)
                batch = type(batch)(**{**vars(batch), "history": history})
            logits, update = network.forward_with_update(batch)
            network.commit(update)
            outputs.append(logits)
        torch.cat(outputs).square().mean().backward()
        gradients = {name: weight.grad.cpu() for name, weight in network.named_parameters() if weight.grad is not None}
        state = {name: value.cpu() for name, value in network.state_buffers().items()}
        results.append(({"logits": torch.cat(outputs).detach().cpu(), **state}, gradients))
    (expected, expected_gradients), (found, gradients) = results
    for one, other in ((expected, found), (expected_gradients, gradients)):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(
                other[name], value, rtol=1e-6, atol=1e-8, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("family", STREAMS)
def test_mixed_precision_stays_near_full_precision(family, device):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        task, data = build(family)
        fit = trainer(device, precision=precision, max_epochs=2)
        fit.fit(task, data)
        losses.append(float(fit.callback_metrics["val/loss"]))
        assert all(torch.isfinite(value).all() for value in task.state_dict().values() if value.is_floating_point())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)  # bf16 has eight bits
