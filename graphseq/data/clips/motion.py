"""Clips of images that move over a canvas and come in again on the other side, labelled with the direction."""

from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions, Stage, StoreDataModule
from graphseq.data.clips.store import ClipStore
from graphseq.data.images.module import ImageDataModule, ImageSetName

__all__ = ["MotionClipsDataModule", "moving_images"]

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Rows and columns of one step in each of the eight directions: right, then clockwise as rows count downwards."""


def moving_images(
    images: Tensor, starts: Tensor, directions: Tensor, num_frames: int, canvas: int, speed: int = 1
) -> Tensor:
    r"""Return clips in which each image moves in one of eight directions over a canvas whose opposite sides meet.

    .. math:: f_t[p] = \mathrm{image}[(p - p_0 - t\, v\, d) \bmod S]

    With a uniform start :math:`p_0` every single frame has the same distribution for all directions d: no classifier of
    single frames is right more often than once in eight clips. The frames of a clip without their order can tell the
    axis but not which of its two directions it is, since a clip played backwards is one of the opposite direction:
    from them the direction is found in half of the clips at best.

    Args:
        images: images (N, C, h, w), not larger than the canvas; the canvas around them is 0.
        starts: row and column of the upper left corner in the first frame, int64 (N, 2).
        directions: number of the direction of each clip, int64 (N,), in 0..7: right, then clockwise.
        num_frames: number of frames T, at least 1.
        canvas: rows and columns S of the canvas.
        speed: number v of pixels between two frames along each axis of the direction, in 1 .. (S - 1) / 2, so that
            directions differ.

    Returns:
        Clips of the dtype of the images, (N, T, C, S, S).

    Raises:
        ValueError: if an argument is out of range or of another shape.
        TypeError: if starts or directions are not integers.

    Example:
        >>> clip = moving_images(torch.ones(1, 1, 1, 1), torch.tensor([[0, 2]]), torch.tensor([0]), 3, canvas=4)
        >>> clip[0, :, 0, 0].tolist()
        [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    """
    if images.dim() != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; (N, C, h, w) is needed")
    count, channels, height, width = images.shape
    if starts.shape != (count, 2) or directions.shape != (count,):
        raise ValueError(
            f"starts have shape {tuple(starts.shape)} and directions {tuple(directions.shape)} for {count} images; "
            f"({count}, 2) and ({count},) are needed"
        )
    for name, given in (("starts", starts), ("directions", directions)):
        if given.is_floating_point():
            raise TypeError(f"{name} are {given.dtype}; whole numbers are needed, such as of torch.randint")
    if directions.numel() and not 0 <= int(directions.min()) <= int(directions.max()) < len(DIRECTIONS):
        raise ValueError(
            f"directions range from {int(directions.min())} to {int(directions.max())}; they must be in "
            f"0..{len(DIRECTIONS) - 1}"
        )
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; it must be at least 1")
    if canvas < max(height, width):
        raise ValueError(f"canvas is {canvas}, too small for images of {height} x {width}")
    if not 1 <= speed < canvas / 2:
        raise ValueError(
            f"speed is {speed} on a canvas of {canvas}; it must be at least 1 and below half of the canvas, beyond "
            "which opposite directions look the same"
        )
    steps = torch.tensor(DIRECTIONS, device=images.device)[directions] * speed  # (N, 2)
    time = torch.arange(num_frames, device=images.device)
    offsets = starts[:, None] + time[:, None] * steps[:, None]  # (N, T, 2)
    pixels = torch.arange(canvas, device=images.device)
    rows, columns = ((pixels - offset[..., None]) % canvas for offset in offsets.unbind(-1))  # (N, T, S)
    padded = images.new_zeros(count, canvas, canvas, channels)
    padded[:, :height, :width] = images.movedim(1, -1)
    clip = torch.arange(count, device=images.device)[:, None, None, None]
    return padded[clip, rows[..., :, None], columns[..., None, :]].movedim(-1, 2)  # (N, T, C, S, S)


class MotionClipsDataModule(StoreDataModule):
    """Clips of :func:`moving_images` from a set of images, labelled with the direction; handwritten digits by default.

    The images of train, validation and test are those of the splits of :class:`ImageDataModule`, so that none is seen
    in two of them; which image moves where is drawn with the seed.

    Videos may be cut into several clips, down to single frames. In training :class:`graphseq.tasks.VideoClassification`
    takes each clip as a sample of its own.

    Source: this data set is an addition of this library. A single frame does not tell the direction, see
    :func:`moving_images`, so that a network has to compare frames.

    Args:
        name: name of the set of images.
        num_train: number of training videos.
        num_val: number of validation videos.
        num_test: number of test videos.
        num_frames: number of frames of a video, at least 2.
        num_clips: number of clips into which a video is cut, a divisor of ``num_frames``.
        canvas: rows and columns of a frame.
        image_scale: factor by which images are enlarged, by repeating pixels.
        speed: number of pixels between two frames along each axis of the direction, at least 1 and below half of the
            canvas.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the clips. Transforms take
            and return clips (B, M, C, T, Y, X) in [0, 1].

    Yields:
        clips float32 (B, M, C, T, Y, X) with values in [0, 1], and labels int64 (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = MotionClipsDataModule(num_train=20, num_val=5, num_test=5, batch_size=4)
        >>> clips, labels = next(data.batches("train"))
        >>> clips.shape, data.num_outputs
        (torch.Size([4, 1, 1, 8, 32, 32]), 8)
    """

    def __init__(
        self,
        name: ImageSetName = "digits",
        *,
        num_train: int = 2000,
        num_val: int = 500,
        num_test: int = 1000,
        num_frames: int = 8,
        num_clips: int = 1,
        canvas: int = 32,
        image_scale: int = 2,
        speed: int = 2,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        least = {"num_train": (num_train, 1), "num_val": (num_val, 1), "num_test": (num_test, 1)}
        least |= {"num_frames": (num_frames, 2), "num_clips": (num_clips, 1), "image_scale": (image_scale, 1)}
        for argument, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{argument} is {value}; it must be at least {lowest}")
        if num_frames % num_clips:
            raise ValueError(f"num_clips is {num_clips}, which does not divide the {num_frames} frames of a video")
        if not 1 <= speed < canvas / 2:
            raise ValueError(
                f"speed is {speed}; on a canvas of {canvas} it must be at least 1 and below {canvas / 2:g}"
            )
        self.images = ImageDataModule(name, seed=self.seed)
        self.name = name
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.num_frames, self.num_clips = num_frames, num_clips
        self.canvas, self.image_scale, self.speed = canvas, image_scale, speed

    @property
    def num_features(self) -> int:
        """Number of channels of a frame."""
        return self.images.num_features

    @property
    def num_outputs(self) -> int:
        """Number of directions, 8."""
        return len(DIRECTIONS)

    def read(self) -> tuple[ClipStore, dict[str, Tensor]]:
        """Return the clips drawn with the seed, and their splits."""
        generator = Generator().manual_seed(self.seed)
        frames, labels, splits, first = [], [], {}, 0
        for split, count in self.counts.items():
            pool = self.images.splits[split]
            chosen = pool[torch.randint(len(pool), (count,), generator=generator)]
            images, _ = self.images.store.take(chosen)
            images = images.repeat_interleave(self.image_scale, 2).repeat_interleave(self.image_scale, 3)
            starts = torch.randint(self.canvas, (count, 2), generator=generator)
            directions = torch.randint(len(DIRECTIONS), (count,), generator=generator)
            clips = moving_images(images, starts, directions, self.num_frames, self.canvas, self.speed)
            frames.append(clips.flatten(0, 1))  # (count T, C, S, S)
            labels.append(directions)
            splits[split] = torch.arange(first, first + count)
            first += count
        ptr = torch.arange(first + 1) * self.num_frames
        clip_frames = self.num_frames // self.num_clips
        return ClipStore(torch.cat(frames), ptr, torch.cat(labels), clip_frames, self.num_clips), splits

    def transformed(self, batch: tuple[Tensor, Tensor], stage: Stage) -> tuple[Tensor, Tensor]:
        """Return a batch with clips in [0, 1], after the transform of a stage and in the precision of the trainer.

        Args:
            batch: clips and labels on the device.
            stage: name of the split.
        """
        clips, labels = batch
        return super().transformed((clips.float().div_(255), labels), stage)
