"""ReLinear in training: rates of groups, decay and clipping step by step, resumption, and what is refused."""

import functools

import pytest
import torch
from torch.utils.data import DataLoader

import graphseq
from graphseq.callbacks import ReLinear
from graphseq.data import ImageDataModule
from graphseq.models import MLP, QuadraticNetwork
from graphseq.nn import quadratize
from graphseq.tasks import Classification
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:You defined a", "ignore:.*LeafSpec", "ignore:A `OneCycleLR`")
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
STEP = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)


def loader():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 4, generator=generator), torch.randint(0, 3, (48,), generator=generator)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=16)


def build(quadratic=True, inputs=4, classes=3, **options):
    torch.manual_seed(0)
    network = MLP(inputs, classes, 8, 3)
    model = QuadraticNetwork(network, skip=["head"]) if quadratic else network
    return Classification(model, classes, **{"optimizer": SGD, **options})


def fit(task, callbacks, epochs=2, **options):
    run = trainer(max_epochs=epochs, callbacks=callbacks, **options)
    run.fit(task, loader())
    return run


def test_groups_follow_the_schedule_and_the_task_is_as_before():
    task = build(scheduler=STEP)
    run = fit(task, [ReLinear(gamma_g=0.1, gamma_b=0.01)])
    (optimizer,) = run.optimizers
    rates = [(group["relinear"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [
        (1.0, pytest.approx(0.025), 0.01), (0.1, pytest.approx(0.0025), 0.01), (0.1, pytest.approx(0.0025), 0.0),
        (0.01, pytest.approx(0.00025), 0.01),
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.parameters()))
    assert task.optimizer is SGD
    assert task.model.network.hidden[0][0].gate.weight.any()


def test_factor_0_is_training_of_the_conventional_network():
    plain, quadratic = build(quadratic=False, optimizer=None), build(optimizer=None)
    fit(plain, [])
    fit(quadratic, [ReLinear(0.0, 0.0)])
    x = torch.randn(5, 4)
    assert torch.equal(quadratic.model(x), plain.model(x))


def test_decay_and_clipping_after_each_step():
    numbers = {"decay_g": 0.5, "decay_b": 2.0, "bound_g": 0.02, "bound_b": 0.01}
    task, by_hand = build(), build()
    fit(task, [ReLinear(1.0, 0.5, **numbers)])
    layers = [block[0] for block in by_hand.model.network.hidden]
    gates = [layer.gate.bias for layer in layers]
    terms = [(layer.gate.weight, 0.0, "g") for layer in layers] + [(bias, 1.0, "g") for bias in gates]
    terms += [(parameter, 0.0, "b") for layer in layers for parameter in layer.power.parameters()]
    slow = [parameter for parameter, _, term in terms if term == "b"]
    rest = [p for p in by_hand.parameters() if not any(p is other for other in [*slow, *gates])]
    groups = [{"params": rest}, {"params": gates, "weight_decay": 0.0}, {"params": slow, "lr": 0.05}]
    optimizer = SGD(groups)
    clipped = 0
    for _ in range(2):
        for batch in loader():
            optimizer.zero_grad()
            by_hand.step(batch).loss.backward()
            optimizer.step()
            with torch.no_grad():
                for parameter, target, term in terms:
                    rate = 0.1 if term == "g" else 0.05
                    moved = target + (parameter - target) * (1 - rate * numbers[f"decay_{term}"])
                    bound = numbers[f"bound_{term}"]
                    clipped += int(((moved - target).abs() > bound).sum())
                    parameter.copy_(moved.clamp(target - bound, target + bound))
    assert clipped > 0
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_resume(tmp_path):
    """Stopped within an epoch of three batches, a run goes on bit for bit."""

    def run(callbacks, **options):
        task = build(inputs=64, classes=10, scheduler=STEP)
        callbacks = [ReLinear(0.1, 0.1, decay_g=1.0), *callbacks]
        trainer(max_epochs=2, callbacks=callbacks, limit_val_batches=0).fit(
            task, ImageDataModule("digits", batch_size=512), **options
        )
        return weights(task)

    path = tmp_path / "k.ckpt"
    with pytest.raises(Interrupted):
        run([SaveAndStop(2, path)])
    assert_same(run([], ckpt_path=path, weights_only=True), run([]))


def test_quadratized_network_is_in_the_checkpoint(tmp_path):
    task = build(quadratic=False)
    quadratize(task.model, skip=["head"])
    run = fit(task, [ReLinear(0.1, 0.1)], epochs=1)
    run.save_checkpoint(tmp_path / "k.ckpt")
    x = torch.randn(5, 4)
    assert torch.equal(graphseq.load(tmp_path / "k.ckpt").model(x), task.model(x))


def test_refused_and_interrupted(tmp_path):
    with pytest.raises(TypeError, match="MLP has no quadratic layers"):
        fit(build(quadratic=False), [ReLinear()])
    interrupted = build(scheduler=STEP)
    with pytest.raises(Interrupted):
        fit(interrupted, [ReLinear(bound_g=1.0), SaveAndStop(1, tmp_path / "k.ckpt")])
    assert interrupted.optimizer is SGD
    cycle = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=9)
    with pytest.raises(ValueError, match="scheduler"):
        fit(build(scheduler=cycle), [ReLinear()])
    for name in ("gamma_g", "decay_b", "bound_g"):
        with pytest.raises(ValueError, match=f"{name} is -0.1"):
            ReLinear(**{name: -0.1})

    class Own(Classification):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    own = Own(build().model, 3)
    with pytest.raises(ValueError, match="Own does not build"):
        fit(own, [ReLinear()])
