import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.core import DataError
from graphseq.metrics import BitsPerCharacter, MeanPinballLoss, bits_per_character
from graphseq.ops import pinball_loss
from graphseq.tasks import Classes, Labels, Numbers, Quantiles, Tokens, objective_of
from tests.metrics.replicas import gathered

NAN = float("nan")
NET = nn.Linear(1, 1)


def cases():
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (6, 3)).double()
    labels[0, 1] = labels[2] = NAN
    numbers = torch.randn(6, 3).double()
    numbers[1, 0] = numbers[4] = NAN
    tokens = torch.randint(0, 5, (6, 4))
    tokens[3, 2:] = -100
    return {
        "classes": (Classes(3), torch.randn(6, 3).double(), torch.randint(0, 3, (6,))),
        "labels": (Labels(3), torch.randn(6, 3).double(), labels),
        "numbers": (Numbers(3), torch.randn(6, 3).double(), numbers),
        "quantiles": (Quantiles((0.1, 0.5, 0.9)), torch.randn(6, 3, 3).double(), numbers),
        "tokens": (Tokens(5), torch.randn(6, 4, 5).double(), tokens),
    }


@pytest.mark.parametrize("name", cases())
def test_the_mean_loss_is_that_of_the_samples(name):
    objective, output, target = cases()[name]
    each = Numbers(3, nn.MSELoss(reduction="none")) if name == "numbers" else objective
    prediction, aligned = objective.align(output, target, NET)
    loss, size = objective.loss(prediction, aligned)
    terms, sizes = each.sample_losses(prediction, aligned)
    assert terms.shape == sizes.shape == (6,)
    torch.testing.assert_close(loss, terms.sum() / sizes.sum())
    assert float(size) == float(sizes.sum())
    alone = [objective.loss(prediction[row : row + 1], aligned[row : row + 1]) for row in range(6)]
    torch.testing.assert_close(sum(value * count for value, count in alone), terms.sum())
    step = objective.step(output, target, NET)
    torch.testing.assert_close(step.loss, loss)


@pytest.mark.parametrize("name", ["labels", "numbers", "quantiles", "tokens"])
def test_without_a_known_target_the_loss_is_zero(name):
    objective, output, target = cases()[name]
    nothing = torch.full_like(target, -100 if name == "tokens" else NAN)
    output.requires_grad_()
    step = objective.step(output, nothing, NET)
    assert float(step.loss.detach()) == 0
    assert float(step.size) == 0
    (gradient,) = torch.autograd.grad(step.loss, output)
    assert not gradient.any()


def test_pinball_loss_equals_the_loops():
    torch.manual_seed(1)
    levels = [0.1, 0.5, 0.9]
    prediction, target = torch.randn(4, 2, 3).double(), torch.randn(4, 2).double()
    found = pinball_loss(prediction, target, levels)
    for row in range(4):
        for column in range(2):
            expected = 0.0
            for q, level in enumerate(levels):
                rest = float(target[row, column] - prediction[row, column, q])
                expected += (level * rest if rest >= 0 else (level - 1) * rest) / 3
            assert float(found[row, column]) == pytest.approx(expected)
    # the median's loss is half the absolute error, and the best constant is the quantile
    half = (target - prediction[..., 0]).abs() / 2
    torch.testing.assert_close(pinball_loss(prediction[..., :1], target, [0.5]), half)
    sample = torch.randn(999, dtype=torch.float64)
    best = min(sample.tolist(), key=lambda value: float(pinball_loss(torch.full((999, 1), value), sample, [0.3]).sum()))
    assert best == pytest.approx(float(sample.quantile(0.3)), abs=0.02)
    assert torch.autograd.gradcheck(lambda p: pinball_loss(p, target, levels), prediction.requires_grad_())
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        pinball_loss(prediction, target, [0.5])


def test_metrics_over_batches_and_processes():
    objective, output, target = cases()["quantiles"]
    metric, other = MeanPinballLoss((0.1, 0.5, 0.9)), MeanPinballLoss((0.1, 0.5, 0.9))
    metric.update(output[:2], target[:2])
    other.update(output[2:], target[2:])
    expected = float(objective.loss(output, target)[0])
    assert float(gathered(metric, other)) == pytest.approx(expected, rel=1e-6)
    objective, output, target = cases()["tokens"]
    metric, other = BitsPerCharacter(), BitsPerCharacter()
    metric.update(output[:4], target[:4])
    other.update(output[4:], target[4:])
    nats = float(objective.loss(output, target)[0])
    assert float(gathered(metric, other)) == pytest.approx(nats / math.log(2), rel=1e-6)
    assert float(bits_per_character(output, target)) == pytest.approx(nats / math.log(2), rel=1e-6)
    metrics = objective.metrics()
    metrics.update(output, target)
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {"ppl": math.exp(nats), "bpc": nats / math.log(2)}, rel=1e-5
    )


def test_very_sure_and_wrong_predictions_cost_finite_bits():
    logits = torch.tensor([[[300.0, 0.0]]])
    metric = BitsPerCharacter()
    metric.update(logits, torch.tensor([[1]]))
    perplexity = Tokens(2).metrics()  # of one token of probability exp(-300) in a hundred
    perplexity.update(torch.cat([logits] * 100, 1), torch.tensor([[1] + [0] * 99]))
    assert float(perplexity.compute()["ppl"]) == pytest.approx(math.exp(3), rel=1e-6)
    assert float(metric.compute()) == pytest.approx(300 / math.log(2), rel=1e-5)


def test_lengths_of_sequences():
    objective, output, _ = cases()["tokens"]
    target = torch.randint(0, 5, (6, 4))
    lengths = torch.tensor([4, 1, 2, 0, 3, 4])
    _, aligned = objective.align(output, target, NET, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(aligned[row, :length], target[row, :length])
        assert (aligned[row, length:] == -100).all()
    loss, size = objective.loss(output, aligned)
    rows = torch.cat([output[row, : int(n)] for row, n in enumerate(lengths)])
    chosen = torch.cat([target[row, : int(n)] for row, n in enumerate(lengths)])
    torch.testing.assert_close(loss, functional.cross_entropy(rows, chosen))
    assert int(size) == 14


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: Classes(1), "num_outputs"),
        (lambda: Labels(0), "num_outputs"),
        (lambda: Numbers(0), "num_outputs"),
        (lambda: Tokens(1), "num_outputs"),
        (lambda: Classes(2, 1.0), "label_smoothing"),
        (lambda: Quantiles(()), "levels"),
        (lambda: Quantiles((0.5, 0.1)), "levels"),
        (lambda: Quantiles((0.5, 0.5)), "levels"),
        (lambda: Quantiles((0.0, 0.5)), "levels"),
        (lambda: Quantiles((0.5, 1.0)), "levels"),
        (lambda: objective_of("binary", 2), "target"),
    ],
)
def test_wrong_arguments(build, name):
    with pytest.raises(ValueError, match=name):
        build()


@pytest.mark.parametrize(
    ("objective", "output", "target", "kind", "name"),
    [
        (Classes(3), torch.zeros(2, 4), torch.tensor([0, 1]), ValueError, "num_outputs"),
        (Classes(3), torch.zeros(2, 3), torch.tensor([0, 3]), DataError, "num_outputs=3"),
        (Classes(3), torch.zeros(2, 3), torch.tensor([-1, 0]), DataError, "num_outputs=3"),
        (Labels(1), torch.zeros(2, 1), torch.tensor([0.0, 2.0]), DataError, "0, 1 and NaN"),
        (Quantiles((0.5,)), torch.zeros(2), torch.zeros(2), ValueError, "levels"),
        (Quantiles((0.5,)), torch.zeros(2, 1), torch.zeros(3), DataError, "targets"),
        (Tokens(3), torch.zeros(2, 3), torch.zeros(2), ValueError, "num_outputs"),
        (Tokens(3), torch.zeros(1, 2, 3), torch.zeros(1, 2), DataError, "target"),
        (Tokens(3), torch.zeros(1, 2, 3), torch.tensor([[0, 3]]), DataError, "num_outputs=3"),
        (Tokens(3), (torch.zeros(1, 2, 3), None), torch.tensor([[0, 2]]), ValueError, "tuple"),
    ],
)
def test_wrong_targets_and_outputs(objective, output, target, kind, name):
    with pytest.raises(kind, match=name):
        objective.align(output, target, NET)
