import math

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import (
    Emitters,
    WidebandDataModule,
    baseband,
    draw_emitters,
    emitter_signals,
    normalized_spectrum,
    occupied_bins,
    received,
    root_raised_cosine,
)


def generator():
    return torch.Generator().manual_seed(3)


def one_by_one(emitters):
    """Each emitter of each recording, as plain numbers."""
    for b, m in emitters.present.nonzero().tolist():
        yield b, m, float(emitters.center[b, m]), float(emitters.bandwidth[b, m])


@pytest.fixture(scope="module")
def recording():
    emitters = draw_emitters(6, bandwidths=(5e5, 1e6, 2e6), num_emitters=(2, 6), generator=generator())
    return emitters, emitter_signals(emitters, 4096, generator=generator())


def test_emitters_keep_the_gap_and_stay_in_the_band():
    emitters = draw_emitters(300, generator=generator())
    numbers, ends = emitters.present.sum(1), {}
    assert (numbers.min(), numbers.max()) == (1, 10)
    assert emitters.present.equal(torch.arange(10) < numbers[:, None])
    for b, _, center, width in one_by_one(emitters):
        assert center - width / 2 >= ends.get(b, -1e7 - 1e5) + 1e5 - 1
        ends[b] = center + width / 2
        assert ends[b] <= 1e7 + 1
    crowded = draw_emitters(50, num_emitters=(9, 9), bandwidths=(2e6, 1e6), generator=generator())
    assert float(crowded.bandwidth.sum(1).max()) <= 2e7 - 8e5


def test_mask_is_the_bins_that_bands_touch(recording):
    emitters, _ = recording
    expected = torch.zeros(6, 256, dtype=torch.bool)
    for b, _, center, width in one_by_one(emitters):
        low, high = ((center + end * width / 2 + 1e7) / 2e7 * 256 for end in (-1, 1))
        expected[b, math.floor(low) : math.ceil(high)] = True
    assert torch.equal(occupied_bins(emitters, 256), expected)


def test_mask_holds_the_energy_of_each_emitter(recording):
    emitters, signals = recording
    energy = torch.fft.fftshift(torch.fft.fft(signals), dim=2).abs().square()
    seen = set()
    for b, m, _, _ in one_by_one(emitters):
        part = (emitters.center, emitters.bandwidth, emitters.modulation, emitters.power)
        alone = Emitters(*(column[b : b + 1, m : m + 1] for column in part), emitters.sample_rate)
        share = energy[b, m][occupied_bins(alone, 4096)[0]].sum() / energy[b, m].sum()
        assert share > 0.95, (b, m)
        seen.add(int(emitters.modulation[b, m]))
    assert len(seen) >= 6


def test_measured_ratio_is_that_of_the_weakest_emitter(recording):
    emitters, signals = recording
    asked = torch.tensor([-20.0, -10.0, -3.0, 0.0, 5.0, 10.0])
    noise = received(signals, asked, generator()) - signals.sum(1)
    for b in range(6):
        powers = [float(signals[b, m].abs().square().mean()) for row, m, _, _ in one_by_one(emitters) if row == b]
        decibels = [10 * math.log10(power) for power in powers]
        assert decibels == pytest.approx(emitters.power[b][emitters.present[b]].tolist(), abs=0.01)
        measured = min(decibels) - 10 * math.log10(float(noise[b].abs().square().mean()))
        assert measured == pytest.approx(float(asked[b]), abs=0.3)


def test_pulse_is_orthogonal_to_its_shifts_by_symbols():
    time = torch.arange(-60 * 64, 60 * 64 + 1, dtype=torch.float64) / 64
    for roll_off in (0.35, 1.0):
        pulse = root_raised_cosine(time, roll_off)
        for shift in (0, 1, 3):
            product = (pulse[: len(pulse) - shift * 64] * pulse[shift * 64 :]).sum() / 64
            assert float(product) == pytest.approx(float(shift == 0), abs=2e-4)
        assert pulse.diff().abs().max() < 0.06  # no jump at the two limits


@pytest.mark.parametrize(("number", "points"), [(0, 4), (1, 2), (2, 8), (3, 8), (4, 16)])
def test_linear_modulations_send_the_points_of_their_constellation(number, points):
    """A matched filter gives symbols back: correlating with the pulse at the right time."""
    signal = baseband(torch.full((1,), number), torch.full((1,), 8.0), 1536, 0.5, generator())[0]
    pulse = root_raised_cosine(torch.arange(-40, 41) / 8.0, 0.5)
    filtered = torch.nn.functional.conv1d(torch.view_as_real(signal).T[:, None], pulse[None, None] / 8)[:, 0]
    best = None
    for begin in torch.arange(0, 8, 0.25).tolist():  # time of the first symbol, between samples
        places = torch.arange(int(begin), filtered.shape[1] - 9, 8)
        left, right = filtered[:, places], filtered[:, places + 1]
        symbols = torch.complex(*(left + (right - left) * (begin % 1)))
        turned = symbols ** {0: 4, 1: 2, 2: 8, 3: 2, 4: 4}[number]
        turn = torch.angle(turned.mean()) / {0: 4, 1: 2, 2: 8, 3: 2, 4: 4}[number]
        # clusters are tight at the right time only
        cells = torch.view_as_real(symbols * torch.polar(torch.tensor(1.0), -turn)).mul(10).round().unique(dim=0)
        best = min(best or 10**9, len(cells))
    assert best <= 9 * points


def test_frequency_modulations_have_a_constant_envelope_and_their_rate():
    signal = baseband(torch.tensor([5, 6]), torch.tensor([16.0, 16.0]), 512, generator=generator())
    torch.testing.assert_close(signal.abs(), torch.ones(2, 512))
    steps = torch.angle(signal[:, 1:] * signal[:, :-1].conj()) * 16 / math.pi  # turns of pi in a symbol
    assert float(steps[1].abs().min()) == pytest.approx(1.0, abs=1e-3)  # index 1: half a turn either way
    assert 0.45 < float(steps[0].abs().max()) < 0.51


@pytest.fixture(scope="module")
def data():
    return WidebandDataModule(num_train=22, num_val=6, num_test=9, num_bins=128, snr=(-5, 0, 10), batch_size=8, seed=4)


def test_batches(data):
    batch = next(data.batches("train"))
    assert (batch["x"].dtype, batch["x"].shape, batch["y"].shape) == (torch.complex64, (8, 128), (8, 128))
    whole = data.store.take(torch.arange(37))
    torch.testing.assert_close(whole["x"].abs().amax(1), torch.ones(37))
    assert set(whole["y"].unique().tolist()) == {0.0, 1.0}
    assert data.split_sizes() == {"train": 22, "val": 6, "test": 9}
    assert whole["snr"][data.splits["test"]].tolist() == [-5, 0, 10] * 3
    assert len({tuple(row) for row in whole["x"].real.tolist()}) == 37  # no recording twice
    inside, outside = (whole["x"].abs().square()[whole["y"] == value].mean() for value in (1, 0))
    assert inside > 5 * outside


def test_the_seed_decides(data):
    options = {"num_train": 22, "num_val": 6, "num_test": 9, "num_bins": 128, "snr": (-5, 0, 10)}
    for seed, same in ((4, True), (5, False)):
        other = WidebandDataModule(**options, seed=seed)
        assert torch.equal(other.store.take(torch.arange(37))["x"], data.store.take(torch.arange(37))["x"]) is same


def test_spectrum_of_a_tone():
    tone = torch.polar(torch.ones(1, 32), 2 * math.pi * 3 / 32 * torch.arange(32.0)[None])
    spectrum = normalized_spectrum(tone)
    assert int(spectrum.abs().argmax()) == 16 + 3
    assert float(spectrum.abs().max()) == pytest.approx(1.0)


def test_wrong_arguments_and_recordings():
    for options, words in (
        ({"num_emitters": (0, 3)}, r"num_emitters is \(0, 3\)"),
        ({"num_emitters": (1, 300)}, r"num_emitters is \(1, 300\)"),
        ({"bandwidths": (1e5, 3e7)}, "bandwidths"),
        ({"gap": -1.0}, "gap is -1"),
        ({"snr": ()}, "snr"),
        ({"snr": (float("nan"),)}, "snr"),
        ({"num_bins": 0}, "num_bins is 0"),
        ({"roll_off": 0.0}, "roll_off is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            WidebandDataModule(**options)
    with pytest.raises(DataError, match="recording 1 has no emitter"):
        received(torch.stack([torch.ones(2, 8), torch.zeros(2, 8)]) + 0j, torch.zeros(2))
    with pytest.raises(TypeError, match="float32"):
        normalized_spectrum(torch.ones(1, 8))
    for bad in (torch.zeros(8), torch.tensor([1.0, float("nan")] * 4), torch.full((8,), float("inf"))):
        with pytest.raises(DataError, match="recording 1"):
            normalized_spectrum(torch.stack([torch.ones(8), bad]) + 0j)
    with pytest.raises(DataError, match=r"\(2, 0\)"):
        normalized_spectrum(torch.zeros(2, 0, dtype=torch.complex64))
    with pytest.raises(ValueError, match="samples_per_symbol begins at 0.5"):
        baseband(torch.tensor([0]), torch.tensor([0.5]), 8)
