"""Published images as several tasks: by groups of classes, or by the order of their pixels."""

from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch import Generator, Tensor

from graphseq.core.continual import TaskBatch
from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions, Stage
from graphseq.data.continual.loader import TaskEvaluationLoader, TaskTrainingLoader
from graphseq.data.images.module import ImageDataModule, ImageSetName
from graphseq.data.store import TensorStore

__all__ = ["PermutedTasksDataModule", "SplitTasksDataModule", "TaskIncrementalDataModule"]


class TaskIncrementalDataModule(ImageDataModule):
    """Base of data modules of several tasks from one set of images, which are learned one after another.

    Epochs belong to tasks: a run over all of them has ``num_tasks * epochs_per_task`` epochs. Tasks are numbered by the
    order in which they are learned, see :attr:`order`; the number of its task goes with each batch. Validation and test
    have the batches of all tasks. A run that is resumed goes on in the order of its checkpoint.

    A subclass defines which samples a task has (:meth:`task_positions`) and what it does to them (:meth:`task_inputs`).

    Args:
        name: name of the set of images, see :class:`ImageDataModule`.
        num_tasks: number of tasks, at least 1.
        epochs_per_task: number of training epochs of each task, at least 1.
        order: the task that comes first, the one that comes second and so on, each of 0..num_tasks - 1 once; None for
            an order drawn with the seed.
        val_fraction: share of the training images for the validation split, in [0, 1).
        options: further arguments of :class:`StoreDataModule`.

    Yields:
        ``TaskBatch`` with images float32 (B, C, Y, X), labels int64 (B,) within the task, and the number of the task.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`, or if a task has no training samples.

    Example:
        >>> data = PermutedTasksDataModule("digits", num_tasks=3, order=[2, 0, 1])
        >>> sorted({batch.task for batch in data.batches("test")}), data.order
        ([0, 1, 2], [2, 0, 1])
    """

    def __init__(
        self,
        name: ImageSetName,
        num_tasks: int,
        *,
        epochs_per_task: int = 10,
        order: list[int] | None = None,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(name, val_fraction=val_fraction, **options)
        for title, number in (("num_tasks", num_tasks), ("epochs_per_task", epochs_per_task)):
            if number < 1:
                raise ValueError(f"{title} is {number}; it must be at least 1")
        if order is not None and sorted(order) != list(range(num_tasks)):
            raise ValueError(f"order is {order}; it must hold each of 0..{num_tasks - 1} once")
        self.num_tasks, self.epochs_per_task = num_tasks, epochs_per_task
        drawn = torch.randperm(num_tasks, generator=Generator().manual_seed(self.seed)).tolist()
        self.order: list[int] = drawn if order is None else list(order)

    def task_positions(self, task: int, split: Tensor) -> Tensor:
        """Return the positions of the samples of a task in a split.

        Args:
            task: the task, by its place in the definition of the tasks.
            split: positions of the samples of the split.
        """
        return split

    def task_inputs(self, task: int, x: Tensor) -> Tensor:
        """Return the inputs of a task from normalised images.

        Args:
            task: the task, by its place in the definition of the tasks.
            x: images (B, C, Y, X).
        """
        return x

    def _indices(self, split: str) -> list[Tensor]:
        found = [self.task_positions(task, self.split_positions(split)) for task in self.order]
        if split == "train" and not all(len(index) for index in found):
            raise DataError(f"tasks {self.order} of {self} have {[len(index) for index in found]} training samples")
        return found

    def loader(self, stage: Stage) -> Any:
        """Return the loader of one stage: of the task of the epoch in training, of all tasks otherwise.

        Args:
            stage: name of the split.
        """
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer is not None else None
        if stage == "train":
            return TaskTrainingLoader(
                self.store,
                self.batch_size,
                self._indices("train"),
                epochs_per_task=self.epochs_per_task,
                shuffle=not getattr(trainer, "overfit_batches", 0),
                drop_last=self.drop_last,
                seed=self.seed,
                device=device,
            )
        split = self.prediction_split if stage == "predict" else stage
        return TaskEvaluationLoader(self.store, self.eval_batch_size, self._indices(split), device)

    def task_batches(self, task: int) -> Iterator[TaskBatch]:
        """Yield the training batches of a task in a fixed order, with the transform of evaluation.

        Args:
            task: number of the task, by the order in which tasks are learned.
        """
        device = self.store.device if self.trainer is None else self.trainer.strategy.root_device
        empty = torch.empty(0, dtype=torch.int64)
        indices = [index if place == task else empty for place, index in enumerate(self._indices("train"))]
        for batch in TaskEvaluationLoader(self.store, self.eval_batch_size, indices, device):
            yield self.transformed(batch, "val")

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Return a batch with normalised images, as its task has them.

        Args:
            batch: one batch on the device.
            stage: name of the split.

        Raises:
            DataError: if the batch does not say of which task it is.
        """
        if not isinstance(batch, TaskBatch):
            raise DataError(
                f"a {type(batch).__name__} without the number of its task was given; which task a sample is of must be "
                "known: predict by Trainer.predict, whose batches come from this data module"
            )
        x, y = super().transformed((batch.x, batch.y), stage)
        return TaskBatch(self.task_inputs(self.order[batch.task], x), y, batch.task)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: that of the images, and the order of the tasks."""
        return {**super().state_dict(), "order": list(self.order)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and go on in its order of tasks.

        Raises:
            DataError: if training would resume on another split or with another number of tasks.
        """
        super().load_state_dict(state_dict)
        if len(state_dict["order"]) != self.num_tasks:
            raise DataError(
                f"the checkpoint was trained on {len(state_dict['order'])} tasks, these are {self.num_tasks}; use the "
                "same tasks"
            )
        self.order = list(state_dict["order"])


class SplitTasksDataModule(TaskIncrementalDataModule):
    """Set of images whose classes are split into tasks: zeros and ones first, then twos and threes, and so on.

    Labels are numbered within the task, so that all tasks have the same number of outputs.

    Source: arXiv 1703.04200 (split MNIST).

    Args:
        name: name of the set of images, see :class:`ImageDataModule`.
        class_groups: classes of each task, as many for each; a class belongs to one task at most. None for five tasks
            of two classes in the order of their numbers.
        epochs_per_task: number of training epochs of each task, at least 1.
        order: the task that comes first, the one that comes second and so on; None for an order drawn with the seed.
        val_fraction: share of the training images for the validation split, in [0, 1).
        options: further arguments of :class:`StoreDataModule`.

    Yields:
        ``TaskBatch`` with images float32 (B, C, Y, X), labels int64 (B,) within the task, and the number of the task.

    Raises:
        ValueError: if an argument is out of range, a class appears in two tasks, or tasks have different numbers of
            classes.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = SplitTasksDataModule("digits", class_groups=[[3, 8], [1, 7], [4, 9]])
        >>> data.num_tasks, data.num_outputs
        (3, 2)
    """

    def __init__(
        self,
        name: ImageSetName,
        class_groups: list[list[int]] | None = None,
        *,
        epochs_per_task: int = 10,
        order: list[int] | None = None,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        groups = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]] if class_groups is None else class_groups
        self._check_groups(groups)
        super().__init__(
            name,
            len(groups),
            epochs_per_task=epochs_per_task,
            order=order,
            val_fraction=val_fraction,
            **options,
        )
        self.task_classes = [list(group) for group in groups]

    @staticmethod
    def _check_groups(groups: list[list[int]]) -> None:
        if len({len(group) for group in groups}) != 1 or len(groups[0]) < 2:
            raise ValueError(
                f"class_groups is {groups}; give each task the same number of classes, at least two, for all tasks "
                "have the same outputs"
            )
        listed = [label for group in groups for label in group]
        for label in listed:
            if not 0 <= label < 10:
                raise ValueError(f"class_groups names the class {label}; classes are 0..9")
            if listed.count(label) > 1:
                raise ValueError(f"class_groups is {groups}, where the class {label} appears twice; give it one task")

    @property
    def num_outputs(self) -> int:
        """Number of classes of a task."""
        return len(self.task_classes[0])

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return images and labels within their tasks, -1 for classes of no task, and the splits."""
        store, splits = super().read()
        images, labels = store.take(torch.arange(len(store)))
        within = torch.full((10,), -1)
        for group in self.task_classes:
            within[group] = torch.arange(len(group))
        return TensorStore(images, within[labels]), splits

    def task_positions(self, task: int, split: Tensor) -> Tensor:
        """Return the positions of the images of the classes of a task.

        Args:
            task: the task, by its place in the groups of classes.
            split: positions of the samples of the split.
        """
        return split[torch.isin(self.fine_labels[split], torch.tensor(self.task_classes[task]))]


class PermutedTasksDataModule(TaskIncrementalDataModule):
    """Set of images whose pixels stand in another order in each task, the same for all images of the task.

    Task 0 has the images as they are; the orders of the others are drawn with the seed.

    Source: arXiv 1312.6211.

    Args:
        name: name of the set of images, see :class:`ImageDataModule`.
        num_tasks: number of tasks, at least 1.
        epochs_per_task: number of training epochs of each task, at least 1.
        order: the task that comes first, the one that comes second and so on; None for an order drawn with the seed.
        val_fraction: share of the training images for the validation split, in [0, 1).
        options: further arguments of :class:`StoreDataModule`.

    Yields:
        ``TaskBatch`` with images float32 (B, C, Y, X), labels int64 (B,), and the number of the task.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = PermutedTasksDataModule("digits", num_tasks=10, batch_size=32)
        >>> next(data.batches("train", epoch=25)).task
        2
    """

    def __init__(
        self,
        name: ImageSetName,
        num_tasks: int = 5,
        *,
        epochs_per_task: int = 10,
        order: list[int] | None = None,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            name, num_tasks, epochs_per_task=epochs_per_task, order=order, val_fraction=val_fraction, **options
        )
        self._pixels: dict[tuple[int, int, torch.device], Tensor] = {}

    def pixels(self, task: int, count: int) -> Tensor:
        """Return the pixel that stands at each place in a task, int64 (count,).

        Args:
            task: the task, from 0, by which the order is drawn.
            count: number of pixels of an image.
        """
        if task == 0:
            return torch.arange(count)
        generator = Generator().manual_seed(self.seed * 1_000_003 + task)
        return torch.randperm(count, generator=generator)

    def task_inputs(self, task: int, x: Tensor) -> Tensor:
        """Return images with their pixels in the order of a task.

        Args:
            task: the task, by which the order is drawn.
            x: images (B, C, Y, X).
        """
        flat = x.flatten(2)
        key = (task, flat.shape[2], x.device)
        if key not in self._pixels:  # kept for each device, since a copy to it would stop every step
            with torch.inference_mode(False):
                self._pixels[key] = self.pixels(task, flat.shape[2]).to(x.device)
        return flat.index_select(2, self._pixels[key]).view_as(x)
