"""Pre-training under noise masks: gradients, the mean of the last weights, resumption, and what is refused."""

import copy
import functools

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional

import graphseq
from graphseq.core import DataError, UnsupportedStrategyError, make
from graphseq.data import BatchLoader, ImageDataModule, TensorStore
from graphseq.models import MLP, ConvNet
from graphseq.nn import BetaMaskPolicy, Pretrained, RandomMask
from graphseq.tasks import Classification, NoiseMaskPretraining
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
HALVED = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
BATCHES = {"limit_train_batches": 2, "limit_val_batches": 1}


def build(policy=None, network=None, **options):
    lightning.seed_everything(0, verbose=False)
    if policy is None:
        policy = BetaMaskPolicy(grid=4, blur_kernel_size=3, blur_sigma=1.0, hidden_features=16)
    network = ConvNet(1, 10, 4, 2, dropout=0.2) if network is None else network
    return NoiseMaskPretraining(network, 10, policy=policy, optimizer=SGD, scheduler=HALVED, **options)


def data():
    return ImageDataModule("digits", batch_size=32)


def test_each_gradient_is_that_of_its_own_loss():
    """Of the classifier that of the cross-entropy under the mask as drawn, of the policy costs times scores."""
    task = build(network=MLP(64, 10, 8))
    batch = torch.randn(12, 1, 8, 8), torch.arange(12) % 10
    twin, gradients = copy.deepcopy(task), {}

    class Look(Callback):
        def on_before_optimizer_step(self, trainer, task, optimizer):
            gradients.update({name: value.grad.clone() for name, value in task.named_parameters()
                              if value.grad is not None})  # fmt: skip

    torch.manual_seed(3)
    trainer(max_epochs=1, callbacks=[Look()]).fit(task, BatchLoader(TensorStore(*batch), 12, shuffle=False))
    torch.manual_seed(3)
    twin.train()
    images, log_prob = twin.policy(batch[0])
    cost = functional.cross_entropy(twin.model(images.detach()), batch[1], reduction="none")
    cost.mean().backward(retain_graph=True)
    for name, value in twin.model.named_parameters():
        torch.testing.assert_close(gradients[f"model.{name}"], value.grad)
    expected = {name: torch.zeros_like(value) for name, value in twin.policy.named_parameters()}
    for image in range(len(cost)):
        others = [float(cost[other]) for other in range(len(cost)) if other != image]
        factor = float(cost[image]) - sum(others) / len(others)
        found = torch.autograd.grad(log_prob[image], list(twin.policy.parameters()), retain_graph=True)
        for name, gradient in zip(expected, found, strict=True):
            expected[name] += factor * gradient / len(cost)
    for name, value in expected.items():
        torch.testing.assert_close(gradients[f"policy.{name}"], value, rtol=1e-3, atol=1e-4)
    assert not any(name.startswith("heated") for name in gradients)


def test_heated_network_is_the_mean_of_the_last_weights_with_statistics_of_its_own():
    class Keep(Callback):
        def __init__(self):
            self.kept = []

        def on_train_epoch_end(self, trainer, task):
            self.kept.append(copy.deepcopy(task.model.state_dict()))
            if trainer.current_epoch < 2:
                assert_same(task.heated.state_dict(), task.model.state_dict())

    keep, module = Keep(), data()
    task = build(average_last=2)
    trainer(max_epochs=4, callbacks=[keep], **BATCHES).fit(task, module)
    for name, value in task.heated.named_parameters():
        torch.testing.assert_close(value, (keep.kept[2][name] + keep.kept[3][name]) / 2)
    images = torch.cat([batch[0] for batch in task.prediction_batches(module, "train", 256)])
    first = task.heated.blocks[0]
    features = first[0](images).double()
    mean, batches = first[1].running_mean, first[1].num_batches_tracked
    assert batches == -(-len(images) // 256)
    sizes = [len(part) for part in images.split(256)]
    expected = sum(part.mean((0, 2, 3)) for part in features.split(sizes)) / len(sizes)
    torch.testing.assert_close(mean.double(), expected, rtol=1e-4, atol=1e-5)
    expected = sum(part.var((0, 2, 3)) for part in features.split(sizes)) / len(sizes)
    torch.testing.assert_close(first[1].running_var.double(), expected, rtol=1e-4, atol=1e-5)
    assert first[1].momentum == 0.1
    assert task.heated.training


# 2 batches an epoch of 2 optimiser steps each: within an epoch, at the end of the first averaged one
@pytest.mark.parametrize("step", [6, 8])
def test_resume_and_fine_tuning(step, tmp_path):
    task = build(average_last=2)
    run = trainer(max_epochs=3, **BATCHES)
    run.fit(task, data())
    expected, rates = weights(task), [found.param_groups[0]["lr"] for found in run.optimizers]
    stop = SaveAndStop(step, tmp_path / "k.ckpt")
    with pytest.raises(Interrupted):
        trainer(max_epochs=3, callbacks=[stop], **BATCHES).fit(build(average_last=2), data())
    task = build(average_last=2)
    torch.rand(100)
    run = trainer(max_epochs=3, **BATCHES)
    run.fit(task, data(), ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected)
    assert [found.param_groups[0]["lr"] for found in run.optimizers] == rates == [0.05 / 8, 1e-3 / 8]
    if step == 8:
        return
    run.save_checkpoint(tmp_path / "end.ckpt")
    tuned = Classification(Pretrained(tmp_path / "end.ckpt", part="heated", freeze=False), 10, optimizer=SGD)
    assert_same(tuned.model.module.state_dict(), task.heated.state_dict())
    assert {name.removeprefix("module.") for name, _ in tuned.model.named_parameters()} == {
        name for name, _ in task.model.named_parameters()
    }, "no policy"
    trainer(max_epochs=1, **BATCHES).fit(tuned, data())
    assert not torch.equal(tuned.model.module.head.weight, task.heated.head.weight)
    assert graphseq.load(tmp_path / "end.ckpt").policy.grid == 4


def test_without_parameters_the_policy_has_no_optimizer():
    task = build(RandomMask(grid=4, blur_kernel_size=3))
    run = trainer(max_epochs=1, **BATCHES)
    run.fit(task, data())
    assert len(run.optimizers) == 1
    assert run.global_step == 2


@pytest.mark.slow
def test_schedulers_that_watch_the_validation():
    task = build(RandomMask(grid=4, blur_kernel_size=3), network=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    task.scheduler = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9
    )
    run = trainer(max_epochs=1, **BATCHES)
    run.fit(task, data())
    assert run.optimizers[0].param_groups[0]["lr"] == 0.025


def test_refused():
    with pytest.raises(ValueError, match="average_last is 0"):
        build(average_last=0)
    images, labels = torch.rand(2, 1, 8, 8), torch.tensor([1, 0])
    with pytest.raises(TypeError, match="policy is a Identity that returns a Tensor"):
        build(nn.Identity()).step((images, labels))
    with pytest.raises(DataError, match="a dict without images"):
        build().step({"y": labels})
    assert build().step({"x": images, "y": labels}).size == 2
    loader = data().loader("train")
    with pytest.raises(TypeError, match="ConvNet has batch norms"):
        trainer().fit(build(), loader)
    with pytest.raises(ValueError, match="max_epochs of the trainer is -1"):
        trainer(max_epochs=-1, max_steps=1).fit(build(), data())
    task = build()
    task._trainer = type("Run", (), {"world_size": 2, "callbacks": []})()
    with pytest.raises(UnsupportedStrategyError, match="2 were given"):
        task.setup("fit")


@pytest.mark.slow
def test_a_policy_learns_to_leave_the_half_that_tells_the_class():
    """Images whose left half, and nothing else, tells the class: masks of low loss are larger there."""
    lightning.seed_everything(0, verbose=False)
    labels, images = torch.randint(0, 4, (2048,)), torch.randn(2048, 1, 8, 8)
    pattern = torch.randint(0, 2, (4, 8, 4)).float() * 2 - 1
    images[:, 0, :, :4] = pattern[labels] + 0.5 * images[:, 0, :, :4]
    policy = BetaMaskPolicy(grid=4, blur_kernel_size=1, hidden_features=32)
    task = NoiseMaskPretraining(make(nn.Sequential, make(nn.Flatten), make(nn.Linear, 64, 4)), 4, policy=policy)
    trainer(max_epochs=25).fit(task, BatchLoader(TensorStore(images, labels), 64, shuffle=True))
    inside, outside = policy.mean_mask[:, :2].flatten(), policy.mean_mask[:, 2:].flatten()
    assert (inside[:, None] > outside).double().mean() > 0.9
    assert inside.mean() > outside.mean() + 0.2
