import itertools

import pytest
import torch

from graphseq.core.errors import DataError
from graphseq.data import ClipStore, ImageDataModule, MotionClipsDataModule, moving_images

STEPS = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]


def every_start(direction, canvas=5, frames=4, speed=2):
    """Clips of one image from all starts."""
    starts = torch.tensor(list(itertools.product(range(canvas), repeat=2)))
    images = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]]]]).expand(len(starts), 1, 2, 2)
    return moving_images(images, starts, torch.full((len(starts),), direction), frames, canvas, speed)


def test_frames_are_shifts_with_wrap_around():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 2, 3, 4), generator=generator, dtype=torch.uint8)
    starts = torch.randint(-9, 9, (16, 2), generator=generator)
    directions = torch.arange(16) % 8
    clips = moving_images(images, starts, directions, 5, canvas=7, speed=3)
    assert clips.dtype == torch.uint8
    for n, t in itertools.product(range(16), range(5)):
        frame = torch.zeros(2, 7, 7, dtype=torch.uint8)
        for row, column in itertools.product(range(3), range(4)):
            y = (int(starts[n, 0]) + 3 * t * STEPS[n % 8][0] + row) % 7
            x = (int(starts[n, 1]) + 3 * t * STEPS[n % 8][1] + column) % 7
            frame[:, y, x] = images[n, :, row, column]
        assert torch.equal(clips[n, t], frame)


def test_one_frame_tells_nothing_and_frames_without_order_only_the_axis():
    """Over all starts each frame takes the same images in all directions, and a clip backwards is an opposite one."""
    clips = [every_start(direction).flatten(2) for direction in range(8)]  # (starts, frames, pixels)

    def rows(values):
        return sorted(map(tuple, values.tolist()))

    for clip, t in itertools.product(clips, range(4)):
        assert rows(clip[:, t]) == rows(clips[0][:, 0])
    for direction in range(8):
        assert rows(clips[direction].flip(1).flatten(1)) == rows(clips[(direction + 4) % 8].flatten(1))
        others = [rows(clips[other].flatten(1)) for other in range(8) if other != direction]
        assert rows(clips[direction].flatten(1)) not in others  # while with the order all differ


def test_store_returns_clips_at_even_distances():
    frames = torch.randn(17, 2, 3, 3)
    store = ClipStore(frames, torch.tensor([0, 6, 9, 17]), torch.tensor([4, 5, 6]), clip_frames=3, num_clips=2)
    first = {0: (0, 3), 1: (6, 6), 2: (9, 14)}  # begins at the first frame, ends at the last one
    index = torch.tensor([2, 0, 1, 2])
    clips, labels = store.take(index)
    for place, video in enumerate(index.tolist()):
        for clip, start in enumerate(first[video]):
            assert torch.equal(clips[place, clip], frames[start : start + 3].transpose(0, 1))
    assert labels.tolist() == [6, 4, 5, 6]
    batched = list(store.to("cpu").batches(index, 3))
    assert [len(labels) for _, labels in batched] == [3, 1]
    assert torch.equal(torch.cat([clips for clips, _ in batched]), clips)
    one = ClipStore(frames, torch.tensor([0, 17]), torch.tensor([0]), clip_frames=4)
    assert torch.equal(one.take(torch.tensor([0]))[0][0, 0], frames[6:10].transpose(0, 1))  # the middle
    assert store.nbytes >= frames.nbytes


@pytest.fixture(scope="module")
def data():
    return MotionClipsDataModule(num_train=40, num_val=8, num_test=12, canvas=20, batch_size=16, seed=3)


def test_videos_of_digits(data):
    clips, labels = next(data.batches("test"))
    assert clips.shape == (12, 1, 1, 8, 20, 20)
    assert clips.min() == 0
    assert 0.9 < clips.max() <= 1
    assert (data.num_features, data.num_outputs) == (1, 8)
    assert data.split_sizes() == {"train": 40, "val": 8, "test": 12}
    sums = clips.sum((2, 4, 5))
    torch.testing.assert_close(sums, sums[:, :, :1].expand_as(sums))  # nothing leaves the canvas
    for clip, label in zip(clips[:, 0, 0], labels.tolist(), strict=True):
        shift = (2 * STEPS[label][0], 2 * STEPS[label][1])
        assert torch.equal(clip[1:], clip[:-1].roll(shift, (1, 2)))


def test_images_of_one_split_are_in_no_other():
    data = MotionClipsDataModule(num_train=40, num_val=8, num_test=12, canvas=20, image_scale=1, seed=3)
    images = ImageDataModule("digits", seed=3)
    for split, other in itertools.permutations(("train", "val", "test"), 2):
        known = {tuple(image.flatten().tolist()) for image in images.store.take(images.splits[other])[0]}
        for clip in data.store.take(data.splits[split])[0][:, 0, 0, 0]:
            rows, columns = (clip.any(axis) for axis in (1, 0))
            shifted = clip.roll((-int(not_before(rows)), -int(not_before(columns))), (0, 1))
            assert tuple(shifted[:8, :8].flatten().tolist()) not in known


def not_before(used):
    """First place after the longest empty stretch of a circle."""
    size = len(used)
    stretch = [next((step for step in range(size) if used[(place - 1 - step) % size]), size) for place in range(size)]
    return max(range(size), key=lambda place: stretch[place])


def test_clips_of_a_video_are_its_frames_in_their_order(data):
    cut = MotionClipsDataModule(num_train=40, num_val=8, num_test=12, canvas=20, num_clips=4, seed=3)
    whole, pieces = (module.store.take(module.splits["test"])[0] for module in (data, cut))
    assert pieces.shape == (12, 4, 1, 2, 20, 20)
    assert torch.equal(pieces.transpose(1, 2).flatten(2, 3), whole[:, 0])


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: MotionClipsDataModule(num_frames=1), ValueError, "num_frames is 1"),
        (lambda: MotionClipsDataModule(num_clips=3), ValueError, "num_clips is 3"),
        (lambda: MotionClipsDataModule(speed=16), ValueError, "speed is 16"),
        (lambda: MotionClipsDataModule(canvas=15).load(), ValueError, "canvas is 15, too small"),
        (lambda: moving_images(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1).long(), torch.zeros(2).long(), 2, 8),
         ValueError, "starts"),
        (lambda: moving_images(torch.zeros(2, 1, 3, 3), torch.zeros(2, 2).long(), torch.tensor([0, 8]), 2, 8),
         ValueError, "directions range from 0 to 8"),
        (lambda: moving_images(torch.zeros(2, 1, 3, 3), torch.zeros(2, 2), torch.zeros(2).long(), 2, 8),
         TypeError, "starts are torch.float32"),
        (lambda: moving_images(torch.zeros(2, 3, 3), torch.zeros(2, 2).long(), torch.zeros(2).long(), 2, 8),
         ValueError, r"\(2, 3, 3\)"),
        (lambda: ClipStore(torch.zeros(4, 3, 3), torch.tensor([0, 4]), torch.zeros(1), 2), DataError, r"\(4, 3, 3\)"),
        (lambda: ClipStore(torch.zeros(4, 1, 3, 3), torch.tensor([0, 3]), torch.zeros(1), 2), DataError, "ptr"),
        (lambda: ClipStore(torch.zeros(4, 1, 3, 3), torch.tensor([0, 4]), torch.zeros(2), 2), DataError, "2 labels"),
        (lambda: ClipStore(torch.zeros(4, 1, 3, 3), torch.tensor([0, 4]), torch.zeros(1), 5), DataError, "4 frames"),
        (lambda: ClipStore(torch.zeros(4, 1, 3, 3), torch.tensor([0, 4]), torch.zeros(1), 0), ValueError, "is 0"),
    ],
)  # fmt: skip
def test_refused(build, kind, message):
    with pytest.raises(kind, match=message):
        build()
