"""Store of videos on one device that returns clips, each frame kept once."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.store import BLOCK_BYTES, DEVICE_BLOCK_BYTES, batch_sizes, blocks, retain_freed_memory

__all__ = ["ClipStore"]


class ClipStore:
    """Videos as one tensor of frames; a sample is a video, given as clips of equal length at even distances.

    Frames are gathered by index, all clips of a block at once, so that clips that overlap cost no memory in the store.
    With one clip it is the middle of the video; with several, the first begins at the first frame and the last ends at
    the last one.

    Args:
        frames: frames of all videos, one video after the other, of any dtype (F, C, Y, X).
        ptr: first frame of each video and, last, the number of frames, int64 (N + 1,).
        y: label of each video, (N,).
        clip_frames: number of frames T of a clip, at least 1.
        num_clips: number of clips M of a video, at least 1.

    Shape:
        index (B,) -> clips (B, M, C, T, Y, X) of the dtype of the frames, labels (B,)

    Raises:
        ValueError: if ``clip_frames`` or ``num_clips`` is below 1.
        DataError: if frames are not (F, C, Y, X), ``ptr`` does not divide them, there is not one label for each video,
            or a video is shorter than a clip.

    Example:
        >>> frames = torch.arange(7).view(7, 1, 1, 1)
        >>> store = ClipStore(frames, torch.tensor([0, 4, 7]), torch.tensor([1, 0]), clip_frames=2, num_clips=3)
        >>> clips, labels = store.take(torch.tensor([0, 1]))
        >>> clips.shape, clips.flatten(2).tolist()[0], labels.tolist()
        (torch.Size([2, 3, 1, 2, 1, 1]), [[0, 1], [1, 2], [2, 3]], [1, 0])
    """

    def __init__(self, frames: Tensor, ptr: Tensor, y: Tensor, clip_frames: int, num_clips: int = 1) -> None:
        for name, value in {"clip_frames": clip_frames, "num_clips": num_clips}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if frames.dim() != 4:
            raise DataError(f"frames have shape {tuple(frames.shape)}; give (F, C, Y, X), one video after the other")
        lengths = ptr.diff()
        if ptr.dim() != 1 or len(ptr) < 2 or int(ptr[0]) != 0 or int(ptr[-1]) != len(frames) or int(lengths.min()) < 1:
            raise DataError(f"ptr does not divide {len(frames)} frames into videos; give 0, then the end of each video")
        if len(y) != len(lengths):
            raise DataError(f"y has {len(y)} labels for {len(lengths)} videos; give one for each")
        if int(lengths.min()) < clip_frames:
            raise DataError(
                f"video {int(lengths.argmin())} has {int(lengths.min())} frames, fewer than clip_frames={clip_frames}; "
                "leave short videos out, or give a smaller clip_frames"
            )
        retain_freed_memory()
        self._frames, self._ptr, self._y = frames, ptr, y
        self.clip_frames, self.num_clips = clip_frames, num_clips
        room = (lengths - clip_frames).to(torch.float64)[:, None]  # (N, 1)
        places = torch.linspace(0, 1, num_clips, dtype=torch.float64) if num_clips > 1 else torch.tensor([0.5])
        self._starts = ptr[:-1, None] + (room * places.to(room)).floor().long()  # (N, M)

    def __len__(self) -> int:
        return len(self._y)

    def __repr__(self) -> str:
        shape = f"{self.num_clips} clips of {self.clip_frames} frames"
        return f"ClipStore({len(self)} videos, {shape}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._frames.device

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return sum(tensor.nbytes for tensor in (self._frames, self._ptr, self._y, self._starts))

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = object.__new__(type(self))
        values = vars(self).items()
        vars(moved).update({name: value.to(device) if isinstance(value, Tensor) else value for name, value in values})
        return moved

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clips and labels of videos.

        Args:
            index: positions of videos, int64 (B,).
        """
        index = index.to(self.device)
        starts = self._starts.index_select(0, index)  # (B, M)
        rows = starts[:, :, None] + torch.arange(self.clip_frames, device=self.device)  # (B, M, T)
        clips = self._frames.index_select(0, rows.flatten()).unflatten(0, rows.shape)  # (B, M, T, C, Y, X)
        return clips.transpose(2, 3), self._y.index_select(0, index)

    def batches(
        self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the clips and labels of videos in batches; each block of about 4 MB is gathered once.

        Args:
            index: positions of videos, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        a_frame = self._frames[0].nbytes
        block_bytes = BLOCK_BYTES if self.device.type == "cpu" else DEVICE_BLOCK_BYTES
        listed = batch_sizes(len(index), sizes)
        index = index.to(self.device)  # once, not block by block
        for rows, block_sizes in blocks(index, listed, a_frame * self.clip_frames * self.num_clips, block_bytes):
            clips, labels = self.take(rows)
            if device is not None:
                clips, labels = clips.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            yield from zip(clips.split(block_sizes), labels.split(block_sizes), strict=True)
