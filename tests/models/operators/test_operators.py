"""Networks between fields: sizes as published, the formula of each, other grids, and checkpoints."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphseq
from graphseq.core import make
from graphseq.data import DarcyDataModule
from graphseq.models import FNO2d, MgNO, ScaledFields, UNet2d
from graphseq.nn import RelativeL2, SpectralConv2d
from graphseq.tasks import Regression
from tests.reliability.runs import trainer


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_numbers_of_parameters():
    assert count(MgNO(1, 1, width=24, num_layers=4, levels=6)) == 572_661
    assert count(MgNO(3, 1, width=24, num_layers=4, levels=6)) == 578_685


def test_layers_add_a_cycle_a_matrix_and_a_bias():
    torch.manual_seed(0)
    network = MgNO(2, 3, width=4, num_layers=2, levels=2, activation=make(nn.Tanh)).double()
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    u = x
    for cycle, pointwise in zip(network.cycles, network.pointwise, strict=True):
        u = torch.tanh(
            cycle(u) + torch.einsum("oi,biyx->boyx", pointwise.weight[..., 0, 0], u) + pointwise.bias[:, None, None]
        )
    expected = torch.einsum("oi,biyx->boyx", network.head.weight[..., 0, 0], u)
    torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (network(x), expected)))


def test_one_level_sees_only_what_is_near():
    """Three convolutions a layer; with coarser grids every point is seen."""
    x = torch.randn(1, 1, 31, 31, requires_grad=True)
    for levels, reach in [(1, 6), (5, 15)]:
        network = MgNO(1, 1, width=4, num_layers=2, levels=levels, alignment="vertex")
        (gradient,) = torch.autograd.grad(network(x)[0, 0, 15, 15], x)
        seen = gradient[0, 0].nonzero()
        assert (int(seen.min()), int(seen.max())) == (15 - reach, 15 + reach)


def test_spectral_layer_equals_the_sum_over_modes():
    torch.manual_seed(0)
    layer = SpectralConv2d(2, 3, modes=2).double()
    nn.init.normal_(layer.weight)
    f = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    y, x = torch.meshgrid(torch.arange(5).double() / 5, torch.arange(6).double() / 6, indexing="ij")
    expected = torch.zeros(1, 3, 5, 6, dtype=torch.float64)
    for row, k in enumerate((0, 1, -2, -1)):
        for m in range(2):
            wave = torch.exp(2j * math.pi * (k * y + m * x))
            mode = (f * wave.conj()).mean((2, 3))
            product = mode @ torch.complex(*layer.weight[:, :, row, m].unbind(-1)).T
            # the mode of opposite sign is the conjugate; along x = 0 half of each of the two
            part = (product[..., None, None] * wave).real
            expected = expected + (part if m == 0 else 2 * part)
    u = layer(f)
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(*(torch.autograd.grad(z.square().sum(), f)[0] for z in (u, expected)))
    with pytest.raises(ValueError, match="at least 4"):
        layer(torch.zeros(1, 2, 3, 8))


def test_smooth_fields_are_the_same_on_a_finer_grid():
    """The layer of an FNO whose input has only the modes that it keeps."""
    layer = SpectralConv2d(1, 1, modes=3).double()

    def wave(size):
        z = torch.arange(size, dtype=torch.float64) / size * 2 * math.pi
        return (torch.cos(z)[:, None] * torch.sin(2 * z) + torch.sin(z)).expand(1, 1, -1, -1)

    torch.testing.assert_close(layer(wave(32))[..., ::2, ::2], layer(wave(16)))


@pytest.mark.parametrize(
    "network",
    [MgNO(1, 2, width=3, num_layers=2, levels=3), FNO2d(1, 2, width=3, num_layers=2, modes=4), UNet2d(1, 2, 3, 3)],
    ids=lambda network: type(network).__name__,
)
def test_a_network_takes_other_grids_and_refuses_other_shapes(network):
    for size in (15, 16, 31):
        y = network(torch.randn(2, 1, size, 20))
        assert y.shape == (2, 2, size, 20)
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    before = network.head.weight.clone()
    network.reset_parameters()
    assert not torch.equal(before, network.head.weight)
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\)"):
        network(torch.zeros(2, 3, 16, 16))


def test_unet_by_hand():
    network = UNet2d(1, 1, width=2, levels=2).double()
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64)

    def pair(convolutions, x):
        for place in (0, 2):
            x = functional.gelu(functional.conv2d(x, convolutions[place].weight, convolutions[place].bias, padding=1))
        return x

    fine = pair(network.down[0], x)
    coarse = pair(network.down[1], functional.avg_pool2d(fine, 2))
    wide = functional.interpolate(coarse, (5, 6), mode="bilinear")
    y = pair(network.up[0], torch.cat([wide, fine], 1))
    torch.testing.assert_close(network(x), functional.conv2d(y, network.head.weight, network.head.bias))


def test_a_trained_network_is_loaded_with_its_scales_and_tested_on_another_grid(tmp_path):
    data = DarcyDataModule(num_train=8, num_val=2, num_test=4, resolution=7, batch_size=4)
    network = ScaledFields(MgNO(1, 1, width=2, num_layers=1, levels=2, alignment="vertex"), data.field_statistics)
    task = Regression(network, 1, loss=RelativeL2(), optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
    run = trainer(default_root_dir=tmp_path, max_epochs=1)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = graphseq.load(tmp_path / "last.ckpt")
    x, y = data.store.take(data.splits["test"])
    assert torch.equal(again((x, y)), task((x, y)))
    inside = network.network((x - x.new_tensor(data.field_statistics["input_mean"])) / network.input_std)
    torch.testing.assert_close(task((x, y)), inside * data.field_statistics["output_scale"][0])
    finer = DarcyDataModule(num_train=1, num_val=0, num_test=4, resolution=15, seed=1)
    assert 0 < run.test(again, finer, verbose=False)[0]["test/loss"] < 10


def test_bad_arguments():
    with pytest.raises(ValueError, match="width is 0"):
        MgNO(width=0)
    with pytest.raises(ValueError, match="padding is 2"):
        FNO2d(padding=2)
    with pytest.raises(ValueError, match="levels is 0"):
        UNet2d(levels=0)
    good = {"input_mean": [0.0], "input_std": [1.0], "output_scale": [1.0]}
    with pytest.raises(ValueError, match="output_scale is"):
        ScaledFields(make(nn.Identity), {**good, "output_scale": [0.0]})
    with pytest.raises(ValueError, match="'input_mean': 2"):
        ScaledFields(make(nn.Identity), {**good, "input_mean": [0.0, 1.0]})


def test_fields_that_no_network_takes():
    x = torch.zeros(1, 1, 8, 8)
    for network in (MgNO(1, 1, 2, 1, 2), FNO2d(1, 1, 2, 1, 2), UNet2d(1, 1, 2, 2), SpectralConv2d(1, 1, 2)):
        with pytest.raises(TypeError, match="fields are torch.complex64"):
            network(x.to(torch.complex64))
        with pytest.raises(TypeError, match="fields are torch.int64"):
            network(x.long())
        assert network(x[:0]).shape == x[:0].shape
    with pytest.raises(TypeError, match="activation is <built-in"):
        MgNO(activation=torch.relu)


def test_scales_of_another_number_of_channels():
    three = {"input_mean": [0.0] * 3, "input_std": [2.0] * 3, "output_scale": [3.0] * 2}
    network = ScaledFields(make(nn.Conv2d, 3, 2, 1), three)
    with pytest.raises(ValueError, match="of 3 channels"):
        network(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="output_scale of 2 channels"):
        ScaledFields(make(nn.Conv2d, 3, 1, 1), three | {"output_scale": [1.0] * 2})(torch.zeros(1, 3, 4, 4))
    other = ScaledFields(make(nn.Conv2d, 3, 2, 1))  # takes those of the state
    other.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(other(x), network(x))
    network.reset_parameters()
    assert not torch.equal(other(x), network(x))
    with pytest.raises(ValueError, match="input_std is"):
        ScaledFields(make(nn.Identity), {**three, "input_std": [math.inf] * 3})
