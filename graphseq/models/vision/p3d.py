"""Pseudo-3D residual networks on clips of video, and their start from the weights of a network on images."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn import P3DBlock

__all__ = ["P3DResNet", "inflate_from_2d"]

Kind = Literal["A", "B", "C", "2d"]
_TEMPORAL_KERNEL = 3


class P3DResNet(Recorded, nn.Module):
    r"""Residual network on clips whose blocks take the kinds A, B and C of :class:`graphseq.nn.P3DBlock` in turn.

    ========  ===========================================================  ========================
    stage     operations                                                   output for 3 x 16 x 160 x 160
    ========  ===========================================================  ========================
    stem      convolution 1 x 7 x 7, stride 2 in space, BN, ReLU           64 x 16 x 80 x 80
    pool      maximum 2 x 3 x 3, stride 2                                  64 x 8 x 40 x 40
    layer1    blocks of width 64; then maximum 2 x 1 x 1                   256 x 8 x 40 x 40
    layer2    blocks of width 128, stride 2 in space; then 2 x 1 x 1       512 x 4 x 20 x 20
    layer3    blocks of width 256, stride 2 in space; then 2 x 1 x 1       1024 x 2 x 10 x 10
    layer4    blocks of width 512, stride 2 in space, of kind ``2d``       2048 x 1 x 5 x 5
    head      mean over time and space, dropout, linear                    out_channels
    ========  ===========================================================  ========================

    The kinds go on from stage to stage: with (3, 4, 6, 3) blocks the third stage begins with C. These are P3D-63; (3,
    4, 23, 3) are P3D-131 and (3, 8, 36, 3) are P3D-199. Time is shortened by max pooling only, which is skipped where
    one frame is left, so that short clips are accepted.

    ``order=("2d",)`` without pooling in time is a ResNet on single frames, whose features are averaged over the clip.

    Source: arXiv 1711.10305, section 3 and the official definition of the network. Differs from it: weights are drawn
    by He's rule; the head takes clips of any size and averages over the frames that are left.

    Args:
        in_channels: number of channels of a frame.
        out_channels: number of outputs of a clip.
        layers: number of blocks of each of the four stages, each at least 1.
        base_width: width of the first stage; 64 in the paper.
        order: kinds of the blocks of the first three stages, repeated in turn: ``A``, ``B``, ``C`` or ``2d``.
        temporal_pool: whether time is halved in the first pooling, and after the first, second and third stage.
        last_stage_2d: whether the blocks of the last stage have no temporal convolution, as published.
        dropout: probability in [0, 1) of setting a feature before the head to zero in training.
        zero_init_temporal: whether temporal parts of kinds B and C begin at zero, see :class:`graphseq.nn.P3DBlock`.

    Shape:
        x (B, in_channels, T, Y, X) real -> (B, out_channels), with T at least 3 if a block has a temporal convolution,
        and Y and X at least 3

    Raises:
        ValueError: if a size, a kind or ``dropout`` is outside its range; in ``forward`` if ``x`` has another rank or
            number of channels, or too few frames or pixels.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> model = P3DResNet(in_channels=1, out_channels=8, layers=(1, 1, 1, 1), base_width=4)
        >>> clips = torch.randn(2, 1, 8, 32, 32)
        >>> model(clips).shape, model.encode(clips).shape, [block.kind for block in model.blocks()]
        (torch.Size([2, 8]), torch.Size([2, 128]), ['A', 'B', 'C', '2d'])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 101,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        base_width: int = 64,
        order: Sequence[Kind] = ("A", "B", "C"),
        temporal_pool: tuple[bool, bool, bool, bool] = (True, True, True, True),
        last_stage_2d: bool = True,
        dropout: float = 0.5,
        zero_init_temporal: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "base_width": base_width}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers is {tuple(layers)}; give four numbers of blocks, each at least 1")
        if not order or any(kind not in get_args(Kind) for kind in order):
            raise ValueError(f"order is {tuple(order)}; give at least one of {', '.join(get_args(Kind))}")
        if len(temporal_pool) != 4:
            raise ValueError(f"temporal_pool is {tuple(temporal_pool)}; give four of true and false")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.temporal_pool = tuple(temporal_pool)
        self.conv1 = nn.Conv3d(in_channels, base_width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(base_width)
        kinds = itertools.cycle(order)
        width, channels = base_width, base_width
        for stage, depth in enumerate(layers, start=1):
            blocks = []
            for place in range(depth):
                kind: Kind = "2d" if stage == 4 and last_stage_2d else next(kinds)
                stride = 2 if stage > 1 and place == 0 else 1
                blocks.append(P3DBlock(channels, width, kind, stride, zero_init_temporal=zero_init_temporal))
                channels = blocks[-1].out_channels
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            width *= 2
        self.encoded_channels = channels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, out_channels)
        self._least_frames = 1 if all(block.kind == "2d" for block in self.blocks()) else _TEMPORAL_KERNEL
        self._reset_stem()

    def blocks(self) -> list[P3DBlock]:
        """Return the blocks of all stages in their order."""
        return [module for module in self.modules() if isinstance(module, P3DBlock)]

    @property
    def depth(self) -> int:
        """Number of layers on the longest path: convolutions, those of shortcuts left out, and the head."""
        return 2 + sum(3 if block.kind == "2d" else 4 for block in self.blocks())

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor, and the statistics of the batch norms."""
        for block in self.blocks():
            block.reset_parameters()
        self.bn1.reset_parameters()
        self.head.reset_parameters()
        self._reset_stem()

    def _reset_stem(self) -> None:
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stem, the first pooling and the four stages, each before the pooling after it.

        Args:
            x: clips (B, in_channels, T, Y, X).
        """
        self._check(x)
        found = [self.bn1(self.conv1(x)).relu()]
        frames = 2 if self.temporal_pool[0] and x.shape[2] > 1 else 1
        x = functional.max_pool3d(found[0], (frames, 3, 3), (frames, 2, 2), ceil_mode=True)
        found.append(x)
        for stage, pooled in enumerate((*self.temporal_pool[1:], False), start=1):
            x = self.get_submodule(f"layer{stage}")(x)
            found.append(x)
            if pooled and x.shape[2] > 1:
                x = functional.max_pool3d(x, (2, 1, 1))
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of each clip, averaged over time and space: the input of the head.

        Args:
            x: clips (B, in_channels, T, Y, X).

        Returns:
            Features (B, encoded_channels).
        """
        return self.stages(x)[-1].mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: clips (B, in_channels, T, Y, X).
        """
        return self.head(self.dropout(self.encode(x)))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"clips have shape {tuple(x.shape)}, where (B, {self.in_channels}, T, Y, X) is needed; set in_channels "
                "to the channels of a frame, put frames behind channels with transpose(1, 2), or add a missing axis "
                "with unsqueeze"
            )
        if not x.is_floating_point():
            raise TypeError(f"clips are {x.dtype}; give real numbers, such as x.float() / 255")
        if x.shape[2] < self._least_frames:
            raise ValueError(
                f"clips have {x.shape[2]} frames, fewer than the {self._least_frames} of the temporal kernel; give "
                "longer clips, or order=('2d',) for single frames"
            )
        if min(x.shape[3:]) < 3:
            raise ValueError(f"frames are {x.shape[3]} x {x.shape[4]}; they must be at least 3 x 3")


@torch.no_grad()
def inflate_from_2d(network: P3DResNet, state: Mapping[str, Tensor]) -> list[str]:
    """Copy the weights of a ResNet on images into a P3D network, with each k x k kernel as 1 x k x k.

    Keys are those of torchvision's bottleneck ResNets: ``conv1``, ``bn1``, ``layer1.0.conv1`` and so on, and ``fc``,
    which is copied into the head if the shapes agree. A network with ``order=("2d",)`` gives such a state as well.
    With ``zero_init_temporal`` and kinds B and C a stage then computes what that of the ResNet does, frame by frame,
    if that has its stride in the first convolution of a block, as here; torchvision's has it in the second one.

    Source: arXiv 1711.10305, section 4.1.

    Args:
        network: network that takes the weights; its temporal convolutions and their norms stay as they are.
        state: state dictionary of the ResNet.

    Returns:
        Names of the entries of the network that were not given, in their order.

    Raises:
        ValueError: if a convolution or a norm of the network is not in ``state`` or of another shape.

    Example:
        >>> sizes = {"in_channels": 1, "out_channels": 2, "layers": (1, 1, 1, 1), "base_width": 2}
        >>> frames = P3DResNet(**sizes, order=("2d",))
        >>> inflate_from_2d(P3DResNet(**sizes, order=("B",)), frames.state_dict())[0]
        'layer1.0.temporal.weight'
    """
    own = network.state_dict()
    given = {name.replace("fc.", "head.") if name.startswith("fc.") else name: value for name, value in state.items()}
    kept, chosen = [], {}
    for name, value in own.items():
        found = given.get(name)
        if found is not None and found.dim() == 4:
            found = found.unsqueeze(2)  # (out, in, k, k) -> (out, in, 1, k, k)
        if found is not None and found.shape == value.shape:
            chosen[name] = found
        elif name.startswith("head.") or ".temporal" in name:
            kept.append(name)
        else:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise ValueError(
                f"state[{name!r}] is {shape}; {tuple(value.shape)} is needed: give the state of a bottleneck ResNet "
                "with the same numbers of blocks, widths and channels"
            )
    for name, found in chosen.items():
        own[name].copy_(found)
    return kept
