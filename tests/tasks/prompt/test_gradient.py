"""Prompts by gradients: the encoder stays as it is, bit for bit; prompts and head learn; checkpoints; refusals."""

import functools

import pytest
import torch
from torch import nn

import graphseq
from graphseq.core import DataError
from graphseq.models import EncoderClassifier
from graphseq.nn import GPF, SUPT, GPFPlus, Pretrained, PromptTokens, RandomPrompt
from graphseq.tasks import Classification, PromptTuning
from tests.reliability.runs import trainer
from tests.tasks.prompt.test_reinforced import data, encoder, saved_encoder

ADAM = functools.partial(torch.optim.Adam, lr=0.05)
PROMPTS = [
    None,
    functools.partial(GPFPlus, num_prompts=3),
    functools.partial(SUPT, num_prompts=3),
    PromptTokens,
    functools.partial(RandomPrompt, magnitude=0.2),
]


def tensors(task):
    return {name: value.clone() for name, value in task.state_dict().items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("prompt", PROMPTS, ids=["gpf", "gpfplus", "supt", "tokens", "random"])
def test_only_prompts_and_head_change(prompt, tmp_path):
    model = Pretrained(saved_encoder(tmp_path), part="model.encoder")
    task = PromptTuning(model, 1, prompt=prompt, optimizer=ADAM)
    frozen = {name: value.clone() for name, value in model.module.state_dict().items()}
    assert any("running_mean" in name for name in frozen)
    before = tensors(task)
    run = trainer(max_epochs=3)
    run.fit(task, data())
    assert all(torch.equal(value, frozen[name]) for name, value in model.module.state_dict().items())
    changed = {name.split(".")[0] for name, value in tensors(task).items() if not torch.equal(value, before[name])}
    assert changed == ({"head", "prompt"} if list(task.prompt.parameters()) else {"head"})
    run.save_checkpoint(tmp_path / "prompt.ckpt")
    again = graphseq.load(tmp_path / "prompt.ckpt")
    batch = data().graphs.take([0, 1, 2])
    assert torch.equal(again.eval()(batch), task.eval()(batch))


def test_training_lowers_the_loss_more_than_the_head_alone():
    """With labels that the prompt can tell and a frozen head, the loss falls by the prompt only."""
    task = PromptTuning(encoder(norm="none"), 1, prompt=functools.partial(GPFPlus, num_prompts=2), optimizer=ADAM)
    task.head.requires_grad_(False)
    batch = data().graphs.take(slice(None))
    first = task.step(batch).loss
    trainer(max_epochs=10).fit(task, data())
    assert task.step(batch).loss < first
    assert task.step(batch, "val").decrease.mean() > 0


def test_a_prompt_of_zero_is_no_prompt():
    model = encoder()
    task = PromptTuning(model, 1)
    nn.init.zeros_(task.prompt.prompt)
    batch = data().graphs.take([0, 1, 2, 3])
    plain = EncoderClassifier(model, 1)
    plain.head = task.head
    expected = plain(batch.x, batch.edge_index, batch.batch, ptr=batch.ptr)
    assert torch.allclose(task(batch), expected)
    step = task.step(batch, "val")
    assert torch.allclose(step.decrease, torch.zeros(4))
    assert step.loss == task.step(batch, "train").loss


def test_single_nodes_and_missing_labels():
    task = PromptTuning(encoder(), 2, prompt=SUPT)
    step = task.step(data("gaps").graphs.take(slice(None)))
    step.loss.backward()
    assert bool(step.loss.isfinite())


def test_linear_probe_and_fine_tuning(tmp_path):
    path = saved_encoder(tmp_path)
    for freeze in (True, False):
        part = Pretrained(path, part="model.encoder", freeze=freeze)
        task = Classification(EncoderClassifier(part, 1, head_layers=2), 1, target="multilabel", optimizer=ADAM)
        before = {name: value.clone() for name, value in part.module.state_dict().items()}
        run = trainer(max_epochs=2)
        run.fit(task, data())
        same = [torch.equal(value, before[name]) for name, value in part.module.state_dict().items()]
        assert (
            all(same)
            if freeze
            else not any(
                equal for equal, name in zip(same, before, strict=True) if name.endswith("weight") and "convs" in name
            )
        )
        run.save_checkpoint(tmp_path / "probe.ckpt")
        batch = data().graphs.take([0, 1])
        assert torch.equal(graphseq.load(tmp_path / "probe.ckpt").eval()(batch), task.eval()(batch))


def test_encoder_of_another_input_width(tmp_path):
    task = PromptTuning(Pretrained(saved_encoder(tmp_path), part="model.encoder"), 1)
    batch = data().graphs.take([0, 1])
    batch.x = batch.x[:, :2]
    with pytest.raises(DataError, match=r"\(4, 2\).* 3 features"):
        task(batch)


def test_refusals():
    with pytest.raises(TypeError, match="prompt built a int"):
        PromptTuning(encoder(), 1, prompt=lambda channels: channels)
    with pytest.raises(TypeError, match="Linear without embed"):
        EncoderClassifier(nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="head_layers is 0"):
        EncoderClassifier(encoder(), 1, head_layers=0)
    assert isinstance(PromptTuning(encoder(), 1).prompt, GPF)
