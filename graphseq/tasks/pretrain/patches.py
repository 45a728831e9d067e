"""Pre-training by masked patches: the patch of a masked position is chosen among masked ones of the same image."""

from typing import Protocol, Unpack, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.errors import DataError
from graphseq.core.protocols import missing_members
from graphseq.ops import choose_patches, patchify
from graphseq.tasks.base import Stage, Step, Task, TaskOptions

__all__ = ["SelfiePretraining"]

_EVALUATION_SEED = 0


@runtime_checkable
class ScoresPatches(Protocol):
    """Network that scores masked patches at masked positions, such as :class:`graphseq.models.SelfieNetwork`."""

    patch_grid: int

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""

    def scores(self, x: Tensor, masked: Tensor, context: Tensor) -> Tensor:
        """Return the scores of the masked patches at the masked positions (B, M, M)."""


class SelfiePretraining(Task[object]):
    r"""Train a patch network to tell which masked patch of an image belongs at a masked position.

    .. math:: L = -\frac{1}{B M} \sum_b \sum_{t=1}^{M} \log \operatorname{softmax}_j(s_{btj})_t

    over the M masked patches j of the same image. Labels are never read, and may be missing. Images should not be
    shifted at random: black borders reveal the position of a patch and make the task easier. The patch network is the
    part ``model.network`` of the checkpoint: a classifier takes it as
    ``Pretrained(path, part="model.network", freeze=False)``, without the attention pooling and the positions.

    Procedure:
        1. mask M random patches of each image, on the device; 2. vectors of all patches; 3. summary of the others and
        a query for each masked position; 4. the loss above; 5. one step of the optimiser. Validation and test mask the
        same patches in each epoch.

    Logs:
        ``<stage>/loss``, log M at chance; ``<stage>/acc``, share of positions at which the correct patch has the
        highest score, 1/M at chance; ``<stage>/ceiling``, the highest accuracy that can be expected, since patches with
        equal pixels cannot be distinguished.

    Source: arXiv 1906.02940. Differs from it: see :class:`graphseq.models.SelfieNetwork`.

    Args:
        model: network with ``scores``, ``num_patches`` and ``patch_grid``, such as
            :class:`graphseq.models.SelfieNetwork`.
        mask_share: share of the patches of an image that are masked, in (0, 1), rounded to a number of at least 2 that
            leaves at least one patch of context; as published a quarter.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if ``model`` lacks a method.
        ValueError: if ``mask_share`` is out of range, or leaves fewer than two masked patches or no context.
        DataError: in a step, if the batch holds no images.

    Example:
        >>> from graphseq.models import ResNetEncoder, SelfieNetwork
        >>> task = SelfiePretraining(SelfieNetwork(ResNetEncoder(3), in_shape=(3, 16, 16)))
        >>> task.num_masked, task.step((torch.randn(2, 3, 16, 16),)).size
        (4, 8)
    """

    def __init__(self, model: nn.Module, *, mask_share: float = 0.25, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        lacking = missing_members(model, ScoresPatches)
        if lacking:
            raise TypeError(
                f"model is a {type(model).__name__} without {', '.join(lacking)}; give a graphseq.models.SelfieNetwork"
            )
        if not 0 < mask_share < 1:
            raise ValueError(f"mask_share is {mask_share}; it must be in (0, 1)")
        self.mask_share = mask_share
        self.num_masked = round(mask_share * self.selector.num_patches)
        if not 2 <= self.num_masked < self.selector.num_patches:
            raise ValueError(
                f"mask_share is {mask_share}, {self.num_masked} of {self.selector.num_patches} patches; at least two "
                "must be masked, to choose between, and one left: give another share, or the network a finer patch_grid"
            )

    @property
    def selector(self) -> ScoresPatches:
        """The network that is trained."""
        return self.model  # type: ignore[return-value]  # checked by the constructor

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss over the masked positions of a batch.

        Args:
            batch: images (B, C, Y, X), or a tuple that begins with them; anything else in it is not read.
            stage: stage of the run.
        """
        x = batch[0] if isinstance(batch, tuple | list) else batch
        if not isinstance(x, Tensor) or x.dim() != 4:
            given = tuple(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise DataError(f"the batch holds {given} where images (B, C, Y, X) are needed")
        generator = None if stage == "train" else torch.Generator(x.device).manual_seed(_EVALUATION_SEED)
        masked, context = choose_patches(len(x), self.selector.num_patches, self.num_masked, x.device, generator)
        scores = self.selector.scores(x, masked, context)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).flatten(0, 1)  # (B M, M)
        target = torch.arange(self.num_masked, device=x.device).repeat(len(x))
        with torch.no_grad():
            right = (scores.argmax(1) == target).float().mean()
            logged = {"acc": right, "ceiling": self._ceiling(x, masked)}
        return Step(functional.cross_entropy(scores, target), scores, target, len(target), logged)

    def _ceiling(self, x: Tensor, masked: Tensor) -> Tensor:
        """Return the mean over masked patches of one over the number of those that equal it, itself among them."""
        grid = self.selector.patch_grid
        patches = patchify(x, (x.shape[2] // grid, x.shape[3] // grid)).flatten(2)  # (B, num_patches, pixels)
        patches = patches.gather(1, masked[:, :, None].expand(-1, -1, patches.shape[2]))
        equal = (patches[:, :, None] == patches[:, None]).all(3)  # (B, M, M)
        return (1 / equal.sum(2)).mean()
