"""Masks: their densities, base logits, size on the image, and what is drawn in evaluation."""

import copy
import math

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.nn import AdditiveNoise, BetaMaskPolicy, RandomMask
from graphseq.ops import gaussian_blur


def policy(**options):
    torch.manual_seed(0)
    return BetaMaskPolicy(grid=2, blur_kernel_size=3, blur_sigma=1.0, hidden_features=8, **options).double()


def log_beta(m, a, b):
    return (a - 1) * math.log(m) + (b - 1) * math.log(1 - m) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)


def test_density_mask_and_base_are_those_of_the_formulas():
    layer, x = policy(mix=0.8, decay=0.9), torch.rand(3, 1, 8, 8, dtype=torch.float64) + 0.1
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        logits = twin.logits(x)
    before = layer.base.clone()
    torch.manual_seed(3)
    found = layer(x)
    torch.manual_seed(3)
    mixed = 5 * torch.tanh((0.8 * before[:, None] + 0.2 * logits) / 5)
    cells = torch.distributions.Beta(*mixed.exp()).sample()
    for image in range(3):
        expected = sum(
            log_beta(float(cells[image, cell]), *(math.exp(float(mixed[part, image, cell])) for part in range(2)))
            for cell in range(4)
        )
        assert found.log_prob[image].item() == pytest.approx(expected, rel=1e-5)
        pixels = cells[image].view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
        blurred = gaussian_blur(pixels[None, None], 3, 1.0)[0, 0]
        torch.testing.assert_close(found.images[image, 0], x[image, 0] * blurred, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.base, 0.9 * before + 0.1 * logits.mean(1), rtol=1e-5, atol=1e-6)


def test_in_evaluation_images_are_under_the_mean_mask_and_nothing_is_drawn():
    layer, x = policy().eval(), torch.rand(3, 1, 8, 8, dtype=torch.float64)
    state, before = torch.get_rng_state(), layer.base.clone()
    found = layer(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layer.base, before)
    assert not found.log_prob.any()
    a, b = (5 * torch.tanh(before / 5)).exp()
    torch.testing.assert_close(layer.mean_mask.flatten(), a / (a + b))
    torch.testing.assert_close(found.images[0] / x[0], found.images[1] / x[1])
    assert "base" in layer.state_dict()


def test_gradients_reach_the_heads_through_the_density_alone():
    layer, x = policy(), torch.rand(4, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    found = layer(x)
    found.images.sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in layer.parameters())
    found.log_prob.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.heads.parameters() if parameter.dim() > 1)


def test_extreme_logits_give_finite_densities():
    layer = policy(mix=0.0)
    for sign in (-1.0, 1.0):
        found = layer.distribution(torch.full((2, 3, 4), 1e4 * sign))
        cells = found.sample((100,)).clamp(1e-6, 1 - 1e-6)
        assert torch.isfinite(found.log_prob(cells)).all()
        assert torch.isfinite(found.log_prob(torch.full((3, 4), 1e-6))).all()
    with torch.no_grad():
        layer.base.fill_(-1e4)
    assert torch.isfinite(layer(torch.ones(2, 1, 8, 8, dtype=torch.float64)).log_prob).all()


def test_random_masks_and_additive_noise():
    torch.manual_seed(0)
    x = torch.ones(64, 2, 8, 8)
    masks, log_prob = RandomMask(grid=8, alpha=2.0, beta=6.0, blur_kernel_size=1)(x)
    assert torch.equal(masks[:, 0], masks[:, 1]), "all channels have one mask"
    assert float(masks[:, 0].mean()) == pytest.approx(0.25, abs=0.01)
    assert float(masks[:, 0].var()) == pytest.approx(2 * 6 / 64 / 9, abs=0.002)
    assert not log_prob.any()
    assert (RandomMask(alpha=2.0, beta=6.0).eval()(x).images == 0.25).all()
    noisy = AdditiveNoise(0.5)(x).images - x
    assert float(noisy.std()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(AdditiveNoise(0.5).eval()(x).images, x)
    state = torch.get_rng_state()
    assert torch.equal(AdditiveNoise(0.0)(x).images, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not [*RandomMask().parameters(), *AdditiveNoise().parameters()]


def test_an_encoder_of_ones_own_and_fresh_parameters():
    layer = BetaMaskPolicy(3, 2, encoder=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), encoder_features=5)
    assert layer(torch.rand(2, 3, 8, 8)).log_prob.shape == (2,)
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    changed = {name for name, value in layer.state_dict().items() if not torch.equal(value, before[name])}
    assert {"base", "encoder.1.weight", "heads.0.0.weight", "heads.1.6.bias"} <= changed


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: BetaMaskPolicy(grid=0), "grid is 0"), (lambda: BetaMaskPolicy(mix=1.0), "mix is 1.0"),
     (lambda: BetaMaskPolicy(decay=1.5), "decay is 1.5"), (lambda: BetaMaskPolicy(hidden_features=0), "hidden_"),
     (lambda: BetaMaskPolicy(blur_kernel_size=4), "blur_kernel_size is 4"),
     (lambda: RandomMask(blur_sigma=0.0), "blur_sigma 0.0"), (lambda: RandomMask(alpha=0.0), "alpha is 0.0"),
     (lambda: AdditiveNoise(-1.0), "std is -1.0"),
     (lambda: BetaMaskPolicy()(torch.ones(2, 3, 8, 8)), r"\(B, 1, Y, X\)"),
     (lambda: RandomMask()(torch.ones(2, 64)), r"\(2, 64\)"), (lambda: AdditiveNoise()(torch.ones(64)), r"\(64,\)"),
     (lambda: RandomMask(grid=8)(torch.ones(2, 1, 6, 9)), "6 x 9 are too small"),
     (lambda: BetaMaskPolicy(grid=2, blur_kernel_size=13).eval()(torch.ones(2, 1, 6, 6)), "blur of 13")],
)  # fmt: skip
def test_bad_use(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_batches_of_no_image_and_of_one():
    layer = policy()
    before = layer.base.clone()
    assert layer(torch.rand(0, 1, 8, 8, dtype=torch.float64)).images.shape == (0, 1, 8, 8)
    assert torch.equal(layer.base, before)
    with pytest.raises(ValueError, match="a batch of one.*drop_last=True"):
        layer(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    assert layer.eval()(torch.rand(1, 1, 8, 8, dtype=torch.float64)).images.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("layer", [BetaMaskPolicy(), RandomMask(), AdditiveNoise()])
def test_integers_are_refused_in_training_and_evaluation(layer):
    for mode in (True, False):
        with pytest.raises(TypeError, match="uint8.*ToFloat"):
            layer.train(mode)(torch.ones(2, 1, 8, 8, dtype=torch.uint8))


def test_random_masks_in_half_precision():
    found = RandomMask(grid=4)(torch.ones(3, 1, 8, 8, dtype=torch.bfloat16)).images
    assert found.dtype == torch.bfloat16
    assert bool((found > 0).all())
    assert float(found.std()) > 0


def test_an_encoder_of_another_width():
    with pytest.raises(ValueError, match=r"features \(2, 64\) for 2 images.*\(2, 5\)"):
        BetaMaskPolicy(encoder=make(nn.Flatten), encoder_features=5)(torch.rand(2, 1, 8, 8))


def test_arguments_are_shown():
    shown = [repr(layer) for layer in (BetaMaskPolicy(grid=4), RandomMask(alpha=2.0), AdditiveNoise(0.3))]
    assert all(one in text for one, text in zip(("grid=4", "alpha=2.0", "std=0.3"), shown, strict=True))
