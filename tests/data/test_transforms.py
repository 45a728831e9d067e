import copy
import pickle
import re
import statistics
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset

from graphseq.core import make
from graphseq.data import ChannelDrop, Compose, GaussianNoise, Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from tests.reference import image_transforms as reference

DTYPES = [
    torch.uint8,
    torch.bool,
    torch.int16,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


def random_images(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, seed: int = 0) -> torch.Tensor:
    numbers = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return numbers % 2 == 0 if dtype == torch.bool else numbers.to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


class TestRandomCrop:
    @settings(max_examples=60, deadline=None)
    @given(
        shape=sizes,
        padding=st.integers(0, 4),
        mode=st.sampled_from(["zeros", "reflect"]),
        dtype=st.sampled_from(DTYPES),
        gradients=st.booleans(),
        seed=st.integers(0, 1000),
    )
    def test_equals_reference(self, shape, padding, mode, dtype, gradients, seed):
        if mode == "reflect":
            padding = min(padding, min(shape[2:]) - 1)
        images = random_images(shape, dtype, seed)
        images.requires_grad_(gradients and dtype.is_floating_point)
        before = images.detach().clone()
        cropped = RandomCrop(padding, mode)(images, generator(seed))
        offsets = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=generator(seed)).T.tolist()
        expected = [
            reference.crop(image, y, x, padding, mode) for image, (y, x) in zip(images.tolist(), offsets, strict=True)
        ]
        assert cropped.dtype == dtype
        assert cropped.tolist() == expected
        assert torch.equal(images, before)

    @pytest.mark.parametrize("mode", ["zeros", "reflect"])
    def test_gradient_goes_where_the_pixel_came_from(self, mode):
        images = torch.randn(3, 2, 5, 4, dtype=torch.float64, requires_grad=True)
        crop = RandomCrop(3, mode)
        weights = torch.randn(3, 2, 5, 4, dtype=torch.float64)
        (crop(images, generator(4)) * weights).sum().backward()
        offsets = torch.randint(0, 7, (2, 3), generator=generator(4)).T.tolist()
        numbers = torch.arange(1, 41, dtype=torch.float64).view(2, 5, 4)  # each pixel carries its own number
        for n, (y, x) in enumerate(offsets):
            moved = torch.tensor(reference.crop(numbers.tolist(), y, x, 3, mode))
            expected = torch.zeros(41, dtype=torch.float64).index_add_(0, moved.flatten().long(), weights[n].flatten())
            assert torch.allclose(images.grad[n].flatten(), expected[1:])

    def test_gradient_changes_no_number(self):
        images = torch.randn(6, 3, 9, 8)
        quick = RandomCrop(2)(images, generator(1))
        assert torch.equal(RandomCrop(2)(images.requires_grad_(), generator(1)), quick)

    def test_every_shift_is_as_likely(self):
        images = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
        images[:, :, 1, 1] = 1
        torch.manual_seed(0)
        counts = RandomCrop(1)(images).sum(0)[0]
        # each of the nine positions: 1000 expected, standard deviation 30
        assert counts.sum() == 9000
        assert (counts - 1000).abs().max() < 150

    def test_images_are_shifted_one_by_one_and_channels_together(self):
        images = random_images((64, 1, 6, 6)).expand(-1, 3, -1, -1)
        cropped = RandomCrop(2)(images, generator())
        assert torch.equal(cropped[:, 0], cropped[:, 2])
        same = RandomCrop(2)(images[:1].expand(64, -1, -1, -1), generator())
        assert len(same.unique(dim=0)) > 10

    def test_neighbours_never_leak(self):
        # what a shift brings in from another row, channel or image would be nan
        images = torch.full((5, 2, 4, 4), torch.nan)
        images[2, 1] = 1.0
        for seed in range(20):
            cropped = RandomCrop(4)(images, generator(seed))[2, 1]
            assert set(cropped.unique().tolist()) <= {0.0, 1.0}

    def test_infinities_and_signed_zeros_are_kept(self):
        images = torch.tensor([torch.inf, -torch.inf, -0.0, torch.nan]).view(1, 1, 2, 2)
        for seed in range(50):
            if torch.randint(0, 3, (2, 1), generator=generator(seed)).eq(1).all():
                kept = RandomCrop(1)(images, generator(seed))
                assert torch.equal(kept.view(torch.int32), images.view(torch.int32))
                return
        pytest.fail("no seed drew the middle window")

    def test_without_padding_nothing_changes(self):
        images = random_images((4, 3, 5, 5))
        assert torch.equal(RandomCrop(0)(images), images)

    @pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 0, 4, 4)])
    def test_empty(self, shape):
        assert RandomCrop(2)(torch.zeros(shape)).shape == shape

    def test_views_of_a_block(self):
        block = random_images((40, 3, 6, 6))
        part = block[7:20]
        for images in (part, part.to(memory_format=torch.channels_last), part.transpose(2, 3)):
            assert torch.equal(RandomCrop(2)(images, generator()), RandomCrop(2)(images.clone(), generator()))

    def test_larger_images(self):
        images = random_images((3, 3, 70, 65), seed=1)
        cropped = RandomCrop(11)(images, generator(3))
        for image, result, (y, x) in zip(
            images, cropped, torch.randint(0, 23, (2, 3), generator=generator(3)).T.tolist(), strict=True
        ):
            assert torch.equal(nn.functional.pad(image, (11,) * 4)[:, y : y + 70, x : x + 65], result)

    def test_inference_mode_first(self):
        with torch.inference_mode():
            RandomCrop(2)(torch.ones(2, 1, 11, 13))
        images = torch.ones(2, 1, 11, 13)
        scale = torch.ones(1, requires_grad=True)
        (RandomCrop(2)(images) * scale).sum().backward()
        assert scale.grad > 0

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="padding is -1"):
            RandomCrop(-1)
        with pytest.raises(ValueError, match="padding_mode is 'edge'"):
            RandomCrop(2, "edge")
        with pytest.raises(ValueError, match="4 x 9 .* 4 pixels; .*padding"):
            RandomCrop(4, "reflect")(torch.zeros(1, 1, 4, 9))


class TestRandomHorizontalFlip:
    @settings(max_examples=40, deadline=None)
    @given(
        shape=sizes,
        p=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        dtype=st.sampled_from([*DTYPES, torch.complex64, torch.complex128]),
        gradients=st.booleans(),
        seed=st.integers(0, 1000),
    )
    def test_equals_reference(self, shape, p, dtype, gradients, seed):
        images = random_images(shape, dtype, seed).requires_grad_(gradients and dtype.is_floating_point)
        before = images.detach().clone()
        result = RandomHorizontalFlip(p)(images, generator(seed))
        chosen = (torch.rand(len(images), generator=generator(seed)) < p).tolist()
        expected = [
            reference.flip(image) if flip else image for image, flip in zip(images.tolist(), chosen, strict=True)
        ]
        assert result.dtype == dtype
        assert result.tolist() == expected
        assert torch.equal(images, before)

    def test_gradient(self):
        images = torch.randn(6, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: RandomHorizontalFlip()(x, generator(2)), images)

    def test_never_and_always(self):
        images = random_images((7, 3, 5, 4))
        assert torch.equal(RandomHorizontalFlip(0.0)(images), images)
        assert torch.equal(RandomHorizontalFlip(1.0)(images), images.flip(-1))
        assert torch.equal(RandomHorizontalFlip(1.0)(RandomHorizontalFlip(1.0)(images)), images)

    def test_share_of_flipped_images(self):
        images = torch.tensor([0, 1], dtype=torch.uint8).expand(10_000, 1, 1, 2)
        torch.manual_seed(0)
        share = RandomHorizontalFlip(0.3)(images)[:, 0, 0, 0].float().mean()
        assert abs(share - 0.3) < 0.02  # standard deviation 0.0046

    def test_nan_stays_in_its_image(self):
        images = torch.ones(50, 1, 2, 3)
        images[::2] = torch.nan
        flipped = RandomHorizontalFlip()(images, generator())
        assert flipped[::2].isnan().all()
        assert (flipped[1::2] == 1).all()

    def test_empty_and_views(self):
        assert RandomHorizontalFlip()(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)
        images = random_images((9, 3, 6, 6))[2:7].transpose(2, 3)
        flip = RandomHorizontalFlip()
        assert torch.equal(flip(images, generator()), flip(images.clone(), generator()))

    @pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
    def test_wrong_arguments(self, p):
        with pytest.raises(ValueError, match=f"p is {p}"):
            RandomHorizontalFlip(p)


class TestNormalizeAndToFloat:
    @settings(max_examples=40, deadline=None)
    @given(shape=sizes, dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]), seed=st.integers(0, 1000))
    def test_equals_reference(self, shape, dtype, seed):
        mean, std = ([0.3, 0.5, 0.1][: shape[1]], [0.2, 0.05, 1.5][: shape[1]])
        images = random_images(shape, dtype, seed)
        result = Normalize(mean, std)(images)
        scale = 1 / 255 if dtype == torch.uint8 else 1.0
        expected = torch.tensor([reference.normalize(image, mean, std, scale) for image in images.tolist()]).double()
        assert result.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
        assert torch.allclose(result.double(), expected, rtol=1e-5, atol=1e-5)

    def test_one_number_for_all_channels(self):
        images = random_images((2, 3, 4, 4))
        assert torch.equal(Normalize([0.3], [0.2])(images), Normalize([0.3] * 3, [0.2] * 3)(images))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_real_numbers_keep_dtype_and_are_not_written(self, dtype):
        images = torch.rand(2, 3, 4, 4, dtype=torch.float64).to(dtype)
        before = images.clone()
        assert Normalize([0.5], [0.5])(images).dtype == dtype
        assert ToFloat()(images).dtype == dtype
        assert torch.equal(images, before)

    def test_gradient_and_inference_mode_first(self):
        normalize = Normalize([0.1, 0.2], [0.5, 0.25])
        images = torch.randn(2, 2, 3, 3, dtype=torch.float64)
        with torch.inference_mode():
            normalize(images)
        assert torch.autograd.gradcheck(normalize, images.requires_grad_())

    def test_to_float(self):
        images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
        assert ToFloat()(images).flatten().tolist() == pytest.approx([level / 255 for level in range(256)], rel=1e-6)
        assert torch.allclose(Normalize([0.0], [1.0])(images), ToFloat()(images))

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="mean has 2 and std 1 "):
            Normalize([0.1, 0.2], [0.3])
        with pytest.raises(ValueError, match="mean has 0 and std 0"):
            Normalize([], [])
        with pytest.raises(ValueError, match=r"std is \[0\.3, 0\.0\]"):
            Normalize([0.1, 0.2], [0.3, 0.0])
        with pytest.raises(ValueError, match="3 channels, mean and std 2 "):
            Normalize([0.1, 0.2], [0.3, 0.3])(torch.zeros(1, 3, 2, 2))
        for transform in (Normalize([0.1], [0.2]), ToFloat()):
            with pytest.raises(TypeError, match=r"images are torch\.int64"):
                transform(torch.zeros(1, 1, 2, 2, dtype=torch.int64))


class TestChannelDrop:
    def test_equals_reference(self):
        images = random_images((40, 3, 2, 2)) | 1
        drawn = torch.rand(40, 1, 1, generator=generator(6)).flatten().tolist()
        result = ChannelDrop(channel=1, p=0.3)(images, generator(6))
        for before, after, draw in zip(images, result, drawn, strict=True):
            assert torch.equal(after[[0, 2]], before[[0, 2]])
            assert torch.equal(after[1], torch.zeros_like(before[1]) if draw < 0.3 else before[1])
        assert 0 < sum(draw < 0.3 for draw in drawn) < 40

    def test_none_and_all(self):
        images = random_images((4, 2, 3, 3)) | 1
        assert torch.equal(ChannelDrop(p=0.0)(images), images)
        assert int(ChannelDrop(p=1.0)(images)[:, 1].count_nonzero()) == 0
        assert int(images.count_nonzero()) == images.numel(), "the batch itself was changed"

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match=r"p is 1\.5"):
            ChannelDrop(p=1.5)
        with pytest.raises(ValueError, match=r"channel is 2; images of shape \(1, 2, 3, 3\)"):
            ChannelDrop(channel=2)(random_images((1, 2, 3, 3)))


class TestGaussianNoise:
    def test_equals_reference(self):
        images = torch.rand(3, 2, 4, 4, dtype=torch.float64)
        noise = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator(5)).flatten().tolist()
        expected = [pixel + 0.25 * draw for pixel, draw in zip(images.flatten().tolist(), noise, strict=True)]
        result = GaussianNoise(0.25)(images, generator(5))
        assert result.dtype == torch.float64
        assert result.flatten().tolist() == pytest.approx(expected)

    def test_moments(self):
        noise = GaussianNoise(0.5)(torch.ones(50, 1, 40, 40), generator())
        assert abs(noise.mean() - 1) < 0.01
        assert abs(noise.std() - 0.5) < 0.01

    def test_no_noise(self):
        images = torch.rand(2, 1, 3, 3)
        assert torch.equal(GaussianNoise(0.0)(images), images)

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match=r"std is -0\.1"):
            GaussianNoise(-0.1)
        with pytest.raises(TypeError, match=r"images are torch\.uint8, .*ToFloat"):
            GaussianNoise(0.1)(random_images((1, 1, 2, 2)))


def augmentation() -> Compose:
    foreign = make(nn.Identity)  # takes no generator
    return Compose([RandomCrop(2), RandomHorizontalFlip(), foreign, Normalize([0.3], [0.4]), GaussianNoise(0.1)])


class TestCompose:
    def test_equals_the_steps(self):
        images = random_images((5, 1, 6, 6))
        source = generator(3)
        step = images
        for transform in (RandomCrop(2), RandomHorizontalFlip()):
            step = transform(step, source)
        step = GaussianNoise(0.1)(Normalize([0.3], [0.4])(step), source)
        assert torch.equal(augmentation()(images, generator(3)), step)

    def test_global_generator_decides(self):
        images = random_images((20, 1, 6, 6))
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first, second = augmentation()(images), augmentation()(images)
        torch.set_rng_state(state)
        assert torch.equal(augmentation()(images), first)
        assert not torch.equal(first, second)

    def test_own_generator_leaves_the_global_one(self):
        state = torch.get_rng_state()
        augmentation()(random_images((4, 1, 6, 6)), generator())
        assert torch.equal(torch.get_rng_state(), state)

    def test_empty_list(self):
        images = random_images((2, 1, 3, 3))
        assert Compose([])(images) is images

    def test_wrong_entry(self):
        with pytest.raises(TypeError, match=r"transforms\[1\] is .*RandomCrop"):
            Compose([ToFloat(), RandomCrop])

    def test_copies_and_pickles(self):
        images = random_images((4, 1, 6, 6))
        first = augmentation()
        first(images)  # fills what is kept for the device
        for other in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            assert torch.equal(other(images, generator()), first(images, generator()))
        assert not first.state_dict()

    def test_config_builds_it_and_the_record_is_the_config(self):
        import jsonargparse

        parser = jsonargparse.ArgumentParser()
        parser.add_argument("--transform", type=nn.Module)
        config = {
            "class_path": "graphseq.data.Compose",
            "init_args": {
                "transforms": [
                    {"class_path": "graphseq.data.RandomCrop", "init_args": {"padding": 2, "padding_mode": "reflect"}},
                    {"class_path": "graphseq.data.Normalize", "init_args": {"mean": [0.3], "std": [0.4]}},
                ]
            },
        }
        built = parser.instantiate(parser.parse_object({"transform": copy.deepcopy(config)})).transform
        assert built._record == config
        assert "padding=2, padding_mode='reflect'" in repr(built)
        assert built(random_images((2, 1, 4, 4))).dtype == torch.float32


@pytest.mark.parametrize(
    "transform", [RandomCrop(1), RandomHorizontalFlip(), ToFloat(), Normalize([0.1], [0.2]), GaussianNoise(0.1)]
)
@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 1, 3, 4, 4)])
def test_wrong_rank(transform, shape):
    with pytest.raises(ValueError, match=re.escape(f"have shape {shape}, ")):
        transform(torch.zeros(shape))


class PerSample(Dataset):
    """Crop and flip sample by sample, as transforms of single tensors do."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = nn.functional.pad(self.images[index], (4, 4, 4, 4))
        y, x = (int(torch.randint(0, 9, (1,))) for _ in range(2))
        image = image[:, y : y + 28, x : x + 28]
        return (image.flip(-1) if torch.rand(1) < 0.5 else image), self.labels[index]


@pytest.mark.slow
def test_twenty_times_as_fast_as_sample_by_sample():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images, labels = random_images((10_240, 1, 28, 28)), torch.zeros(10_240)
        augment = Compose([RandomCrop(4), RandomHorizontalFlip()])
        ratios = []
        for _ in range(5):
            start = time.perf_counter()
            for _batch in DataLoader(PerSample(images, labels), batch_size=256, shuffle=True):
                pass
            middle = time.perf_counter()
            for index in torch.randperm(len(images)).split(256):
                augment(images.index_select(0, index))
            ratios.append((middle - start) / (time.perf_counter() - middle))
        assert statistics.median(ratios) >= 20, ratios
    finally:
        torch.set_num_threads(threads)
