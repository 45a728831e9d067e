import pytest
import torch

from graphseq.core import DataError
from graphseq.models import CMuSeNet, EnergyDetector, RealMuSeNet, num_real_parameters


def noise(*shape):
    return torch.randn(*shape, dtype=torch.complex64)


def formula(inputs, channels, num_blocks, kernel, features, bins):
    """Numbers of a network: convolutions without bias, two numbers of a norm for each channel, and the head."""
    count, before = inputs * channels[0] * 7**kernel + 2 * channels[0], channels[0]
    for stage, (after, blocks) in enumerate(zip(channels, num_blocks, strict=True)):
        for number in range(blocks):
            count += (before + after) * after * 3**kernel + 4 * after
            if number == 0 and (stage > 0 or before != after):
                count += before * after + 2 * after
            before = after
    return count + (features + 1) * bins


@pytest.mark.parametrize(("layout", "axes", "positions"), [("1d", 1, 4), ("square", 2, 1)])
def test_outputs_and_numbers_of_parameters(layout, axes, positions):
    channels, blocks, bins = (3, 5), (2, 1), 64
    features = 5 * positions**axes
    twin = RealMuSeNet(bins, channels, blocks, layout, positions)
    assert num_real_parameters(twin) == formula(2, channels, blocks, axes, features, bins)
    network = CMuSeNet(bins, channels, blocks, layout, positions)
    # a complex weight is two numbers; the norms have five (matrix and shift) where the formula counts two complex ones
    norms = sum(module.num_features for module in network.modules() if hasattr(module, "running_covariance"))
    assert num_real_parameters(network) == 2 * formula(1, channels, blocks, axes, features, bins) + norms
    x = noise(2, bins)
    logits = network(x)
    assert (logits.shape, logits.dtype) == ((2, bins), torch.complex64)
    logits.abs().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters() if parameter.dim() > 1)
    assert twin(x).dtype == torch.float32


def test_the_head_of_the_published_size():
    head = torch.nn.Linear(512, 16384, dtype=torch.complex64, device="meta")
    assert num_real_parameters(head) == 2 * (512 + 1) * 16384


def test_the_twin_on_the_modulus_sees_no_phase_and_the_complex_network_does():
    x, phases = noise(2, 32), torch.polar(torch.ones(2, 32), 6 * torch.rand(2, 32))
    twin = RealMuSeNet(32, (3, 4), (1, 1), "1d", reading="magnitude").eval()
    torch.testing.assert_close(twin(x * phases), twin(x), atol=1e-5, rtol=1e-4)
    for network in (CMuSeNet(32, (3, 4), (1, 1), "1d"), RealMuSeNet(32, (3, 4), (1, 1), "1d")):
        network.eval()
        assert not torch.allclose(network(x * phases).real, network(x).real, atol=1e-3)


def test_detector_finds_a_band_over_noise_of_any_scale():
    x = noise(3, 200) * torch.tensor([[0.1], [1.0], [10.0]])
    x[:, 90:110] *= 30
    found = EnergyDetector(window=3, threshold=15.0)(x) > 0
    assert found[:, 90:110].all()
    assert not found[:, :88].any()
    assert not found[:, 112:].any()
    quiet = EnergyDetector(quantile=0.5, threshold=0.0)(noise(200, 500)).exp()
    assert float(quiet.mean()) == pytest.approx(1.0, abs=0.03)  # power over the noise that is estimated


@pytest.mark.parametrize("kind", [CMuSeNet, RealMuSeNet])
def test_bad_spectra_are_refused(kind):
    network = kind(16, (2,), (1,), "1d")
    with pytest.raises(TypeError, match=r"float32.*\(B, 16\)"):
        network(torch.zeros(2, 16))
    with pytest.raises(ValueError, match=r"\(2, 17\).*\(B, 16\)"):
        network(noise(2, 17))
    x = noise(2, 16)
    x[1, 3] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        network(x)


def test_wrong_arguments():
    for options, words in (
        ({"out_features": 60}, "out_features is 60"),
        ({"layout": "2d"}, "'2d'"),
        ({"channels": (2, 3)}, "channels is"),
        ({"num_positions": 0}, "num_positions is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            CMuSeNet(**{"out_features": 16, "channels": (2,), "num_blocks": (1,), **options})
    with pytest.raises(ValueError, match="'phase'"):
        RealMuSeNet(16, reading="phase")
    with pytest.raises(ValueError, match="window is 2"):
        EnergyDetector(window=2)
    with pytest.raises(ValueError, match="quantile is 1"):
        EnergyDetector(quantile=1.0)
    with pytest.raises(TypeError, match="float32"):
        EnergyDetector()(torch.zeros(2, 4))
    half = CMuSeNet(16, (2,), (1,), "1d")
    with pytest.warns(UserWarning, match="imaginary"):
        half.to(torch.bfloat16)
    with pytest.raises(TypeError, match="bfloat16.*32-true"):
        half(noise(2, 16))
