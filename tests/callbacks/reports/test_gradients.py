"""Gradient norms: those of autograd, the same training with and without, figure, resumption, refusals."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from graphseq.callbacks import GradientNormMonitor, draw_gradient_norms
from graphseq.models import TransformerLanguageModel
from graphseq.nn import CausalAttention, MixLNStack
from graphseq.tasks import LanguageModeling
from tests.reliability.runs import trainer


def run(folder, callbacks, epochs=2, **options):
    torch.manual_seed(0)
    task = LanguageModeling(TransformerLanguageModel(7, MixLNStack(CausalAttention(8, 2), 3)), 7)
    rows = torch.randint(7, (16, 6), generator=torch.Generator().manual_seed(0))
    fit = trainer(max_epochs=epochs, callbacks=callbacks, logger=CSVLogger(folder), **options)
    return task, fit, DataLoader(rows, batch_size=8)


def test_norms_are_those_of_the_gradients(tmp_path):
    monitor = GradientNormMonitor(every_n_steps=1)
    task, fit, loader = run(tmp_path, [monitor], gradient_clip_val=1e-3)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fit.fit(task, loader)
    assert [entry["step"] for entry in monitor.history] == [0, 1, 2, 3]
    task.load_state_dict(before)
    task.zero_grad()
    task.step(next(iter(loader))).loss.backward()
    for block, norm in zip(task.model.layers.blocks, monitor.history[0]["norms"], strict=True):
        squares = sum(float(weight.grad.square().sum()) for weight in block.parameters())
        assert norm == pytest.approx(squares**0.5, rel=1e-5)  # before they are clipped
    assert (tmp_path / "lightning_logs" / "version_0" / "gradient_norms.png").read_bytes()[:4] == b"\x89PNG"


def test_training_is_the_same_with_and_without_and_goes_on(tmp_path):
    plain, fit, loader = run(tmp_path, [])
    fit.fit(plain, loader)
    monitor = GradientNormMonitor(every_n_steps=3)
    watched, first, _ = run(tmp_path, [monitor], epochs=1)
    first.fit(watched, loader)
    first.save_checkpoint(tmp_path / "last.ckpt")
    again = GradientNormMonitor(every_n_steps=3)
    task, second, _ = run(tmp_path, [again])
    second.fit(task, loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [entry["step"] for entry in again.history] == [0, 3]
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in plain.state_dict().items())


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        GradientNormMonitor(every_n_steps=0)
    with pytest.raises(ValueError, match="history is empty"):
        draw_gradient_norms([])
    task, fit, loader = run(tmp_path, [GradientNormMonitor("model.layers.block")])
    with pytest.raises(ValueError, match=r"'model.layers.block', .* are model.layers.blocks"):
        fit.fit(task, loader)
