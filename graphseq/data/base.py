"""Base class of all data modules: device residency, loaders, splits, transforms of each stage on the device."""

import hashlib
import inspect
import os
import warnings
from collections.abc import Iterator
from typing import Any, Literal, Self, TypedDict, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from graphseq.core.batches import content_sums
from graphseq.core.checkpoint import read_checkpoint
from graphseq.core.errors import DataError
from graphseq.data.loader import BatchLoader
from graphseq.data.precision import TRUE_PRECISIONS, cast_floats
from graphseq.data.splits import with_val
from graphseq.data.store import Store, positions

__all__ = ["DataOptions", "StoreDataModule"]

Stage = Literal["train", "val", "test", "predict"]


class DataOptions(TypedDict, total=False):
    """Arguments that data modules pass on to :class:`StoreDataModule` as ``**options: Unpack[DataOptions]``.

    Args:
        batch_size: number of training samples of one batch over all processes, at least 1; default 128.
        eval_batch_size: number of samples of one validation, test or prediction batch; default ``batch_size``.
        seed: seed of the splits, of generated data and of the order of training batches; default 0.
        device_resident: whether the store moves to the training device: ``true``, ``false``, or ``auto``, which moves
            it if it takes less than a quarter of the free memory; default ``auto``.
        drop_last: whether training leaves out a last batch smaller than ``batch_size``; default false.
        train_transform: module applied on the device to the inputs of each training batch.
        eval_transform: module applied on the device to the inputs of each validation, test and prediction batch.

    Example:
        >>> sorted(DataOptions.__annotations__)[:2]
        ['batch_size', 'device_resident']
    """

    batch_size: int
    eval_batch_size: int | None
    seed: int
    device_resident: bool | Literal["auto"]
    drop_last: bool
    train_transform: nn.Module | None
    eval_transform: nn.Module | None


class StoreDataModule(LightningDataModule):
    """Data module over one store and one index tensor for each split.

    A subclass defines :meth:`read`, which returns the store and the splits. The store is moved to the device once,
    batches are gathered there by index, and transforms are applied there to whole batches. Sizes such as
    ``num_features`` can be read before ``setup``; this reads the data. With the trainer's precision
    ``64-true``, ``bf16-true`` or ``16-true`` floating-point tensors of a batch are cast to it, after the transform;
    integers, booleans and times are not. There are no worker processes, and so no ``num_workers``: the loaders gather
    from memory.

    Args:
        batch_size: number of training samples of one batch over all processes, at least 1.
        eval_batch_size: number of samples of one validation, test or prediction batch; default ``batch_size``.
        seed: seed of the splits and of the order of training batches, in 0..2**32-1.
        device_resident: whether the store moves to the training device: ``True``, ``False`` (each gathered block of
            about 4 MB is moved instead), or ``"auto"``, which moves it if it takes less than a quarter of the free
            memory.
        drop_last: whether training leaves out a last batch smaller than ``batch_size``.
        train_transform: module applied on the device to the inputs of each training batch.
        eval_transform: module applied on the device to the inputs of each validation, test and prediction batch.

    Yields:
        the batches of the store.

    Raises:
        ValueError: if a batch size is below 1, ``seed`` is out of range or ``device_resident`` is another value.
        TypeError: if a transform cannot be called.
        DataError: when the data are read, if :meth:`read` returns something else than a store and valid splits.

    Example:
        >>> from graphseq.data import TensorStore
        >>> class Numbers(StoreDataModule):
        ...     def read(self):
        ...         store = TensorStore(torch.randn(10, 2), torch.randn(10))
        ...         return store, {"train": torch.arange(8), "val": torch.arange(8, 9), "test": torch.arange(9, 10)}
        >>> len(Numbers(batch_size=4).train_dataloader())
        2
    """

    def __init__(
        self,
        batch_size: int = 128,
        *,
        eval_batch_size: int | None = None,
        seed: int = 0,
        device_resident: bool | Literal["auto"] = "auto",
        drop_last: bool = False,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seed is {seed!r}; it must be an integer in 0..2**32-1")
        for name, transform in (("train_transform", train_transform), ("eval_transform", eval_transform)):
            if transform is not None and not callable(transform):
                raise TypeError(
                    f"{name} is a {type(transform).__name__}; give a module, or another callable from inputs to inputs"
                )
        if device_resident not in (True, False, "auto"):
            raise ValueError(f"device_resident is {device_resident!r}; it must be true, false or 'auto'")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.seed = seed
        self.device_resident = device_resident
        self.drop_last = drop_last
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self._host: Store | None = None
        self._resident: Store | None = None
        self._splits: dict[str, Tensor] = {}
        self._predicted: str | None = None
        self._trained: dict[str, Any] | None = None
        self._contents: tuple[Store, list[list[float]]] | None = None

    def for_prediction(self, checkpoint: str | os.PathLike[str] | None = None, split: str | None = None) -> Self:
        """Read the data to be predicted, and return the data module: targets may then be absent.

        Names of classes, features and targets, and fitted numbers such as means, are those of the checkpoint. Data
        without targets have no splits; all samples are predicted. Call it before the data are read.

        Args:
            checkpoint: file of the trained task; None for a task that was not trained, which needs data with targets.
            split: name of the split to predict, or ``all`` for all samples; None for the split ``predict`` of the data
                module if it has one, else ``test``, or ``all`` if there are no targets.

        Raises:
            CheckpointError: if the file is not a checkpoint.
            DataError: if the data are read already.

        Example:
            >>> from graphseq.data import SyntheticEventsDataModule
            >>> SyntheticEventsDataModule().for_prediction(split="all").prediction_split
            'all'
        """
        if self._host is not None:
            raise DataError(f"{self} is read already; call for_prediction first")
        self._predicted = split
        if checkpoint is not None:
            self._trained = dict(read_checkpoint(checkpoint).get(type(self).__qualname__, {}))
        return self

    def trained(self, name: str, default: Any = None) -> Any:
        """Return an entry of the state of this data module in the checkpoint given to :meth:`for_prediction`.

        Args:
            name: name of the entry.
            default: result without a checkpoint, or if it has no such entry.
        """
        return default if self._trained is None else self._trained.get(name, default)

    @property
    def predicting(self) -> bool:
        """Whether the data are read to be predicted from a checkpoint, so that targets may be absent."""
        return self._trained is not None

    def divides(self, labelled: bool) -> bool:
        """Return whether :meth:`read` has to split the data; if not, it may return no splits.

        Args:
            labelled: whether the data have targets.
        """
        return not self.predicting or (labelled and self._predicted != "all")

    @property
    def prediction_split(self) -> str:
        """Name of the split that is predicted, see :meth:`for_prediction`."""
        if self._predicted is not None:
            return self._predicted
        return next((name for name in ("predict", "all") if name in self.splits), "test")

    def split_positions(self, split: str) -> Tensor:
        """Return the positions of the samples of a split, int64.

        Args:
            split: name of the split, or ``all`` for all samples.

        Raises:
            DataError: if there is no such split.
        """
        if split == "all":
            return torch.arange(len(self.store))
        if split not in self.splits:
            raise DataError(f"split is {split!r}; the splits are {', '.join(self.splits)} and all")
        return self.splits[split]

    def read(self) -> tuple[Store, dict[str, Tensor]]:
        """Return the store on the CPU and an index tensor for each of ``train``, ``val`` and ``test``.

        Called once. Data that are predicted may have no targets and need no splits, see :meth:`divides`. It runs in
        every process before the process group exists, so it must write files atomically and give the same result in all
        processes.
        """
        raise TypeError(f"{type(self).__name__} must define read()")

    def load(self) -> None:
        """Read the data unless they are read already, and check the splits."""
        if self._host is not None:
            return
        store, splits = _checked(self.read(), f"{type(self).__name__}.read()")
        splits = with_val(splits)
        if not splits and self.predicting:
            none = torch.arange(0)
            splits = {"train": none, "val": none, "test": none, "all": torch.arange(len(store))}
        for name in ("train", "val", "test"):
            if name not in splits:
                raise DataError(
                    f"{type(self).__name__}.read() gave splits {sorted(splits)}; train, val and test are needed"
                )
        splits = {name: positions(index, len(store)) for name, index in splits.items()}
        for name, index in splits.items():
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(store):
                raise DataError(
                    f"the {name} split has positions from {int(index.min())} to {int(index.max())}; with {len(store)} "
                    f"samples they must be in 0..{len(store) - 1}"
                )
        if not len(splits["train"]) and not self.predicting:
            raise DataError(f"the training split of {type(self).__name__} is empty")
        self._host, self._splits = store, splits

    @property
    def store(self) -> Store:
        """The store, on the training device once a trainer has set the module up."""
        self.load()
        return cast(Store, self._resident or self._host)

    @property
    def splits(self) -> dict[str, Tensor]:
        """Index tensor of each split."""
        self.load()
        return self._splits

    def __str__(self) -> str:  # Lightning's own walks through loaders and data sets
        if self._host is None:
            return f"{type(self).__name__}(not read yet)"
        sizes = ", ".join(f"{name} {len(index)}" for name, index in self._splits.items())
        return f"{type(self).__name__}({self._host!r}; {sizes})"

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        # Reached only when the usual look-up failed. For a property this means an AttributeError inside it, which
        # the command line would take for "no such size" and silently leave the network's default.
        found = inspect.getattr_static(type(self), name, None)
        if isinstance(found, property) and found.fget is not None:
            try:
                return found.fget(self)
            except AttributeError as error:
                raise DataError(f"{type(self).__name__}.{name} failed: {error}") from error
        hint = "" if "_host" in vars(self) else "; if it has an __init__, that must call super().__init__() first"
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def prepare_data(self) -> None:
        """Read the data, so that downloads happen before processes are synchronised."""
        self.load()

    def setup(self, stage: str | None = None) -> None:
        """Read the data and move the store to the training device if it is to reside there."""
        self.load()
        if self.trainer is None:
            return
        device = self.trainer.strategy.root_device
        if self._lives_on(device):
            self._resident = self.store.to(device)

    def _lives_on(self, device: torch.device) -> bool:
        if self.device_resident == "auto" and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            return self.store.nbytes < free / 4
        return bool(self.device_resident)

    def teardown(self, stage: str | None = None) -> None:
        """Free the device memory; the store on the CPU is kept."""
        self._resident = None

    def loader(self, stage: Stage) -> BatchLoader:
        """Return the loader of one stage.

        Args:
            stage: name of the split; ``train`` is shuffled, ``val``, ``test`` and ``predict`` (see
                :attr:`prediction_split`) keep their order.
        """
        split = self.prediction_split if stage == "predict" else stage
        trainer = self.trainer
        training = stage == "train"
        return BatchLoader(
            self.store,
            self.batch_size if training else self.eval_batch_size,
            shuffle=training and not getattr(trainer, "overfit_batches", 0),
            index=self.split_positions(split),
            drop_last=training and self.drop_last,
            seed=self.seed,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            device=trainer.strategy.root_device if trainer is not None else None,
        )

    def train_dataloader(self) -> BatchLoader:
        """Return the shuffled loader of the training split."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """Return the loader of the validation split; no loader if it is empty."""
        return self.loader("val") if len(self.splits["val"]) else []

    def test_dataloader(self) -> Any:
        """Return the loader of the test split; no loader if it is empty."""
        return self.loader("test") if len(self.splits["test"]) else []

    def predict_dataloader(self) -> BatchLoader:
        """Return the loader of the split that is predicted, see :attr:`prediction_split`.

        Raises:
            DataError: if there is no such split, or it is empty.
        """
        split = self.prediction_split
        if not len(self.split_positions(split)):
            sizes = ", ".join(f"{name} {len(index)}" for name, index in self.splits.items())
            raise DataError(
                f"the {split} split of {type(self).__name__} is empty, so there is nothing to predict; the splits are "
                f"{sizes}. Take split='all', on the command line --split all, for all samples"
            )
        return self.loader("predict")

    def batches(self, stage: Stage = "train", epoch: int = 0) -> Iterator[Any]:
        """Yield transformed batches without a trainer, for a training loop of your own.

        Args:
            stage: name of the split.
            epoch: number of the epoch, on which the order of training batches depends.
        """
        loader = self.loader(stage)
        loader.set_epoch(epoch)
        for batch in loader:
            yield self.transformed(batch, stage)

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Return a batch after the transform of a stage, in the precision of the trainer.

        The transform is applied to the first entry of a tuple, else to the whole batch.

        Args:
            batch: one batch on the device.
            stage: name of the split.
        """
        transform = self.train_transform if stage == "train" else self.eval_transform
        if transform is not None:
            batch = self.apply_transform(transform, batch, stage)
        dtype = None if self.trainer is None else TRUE_PRECISIONS.get(str(self.trainer.precision))
        return batch if dtype is None else cast_floats(batch, dtype)

    def apply_transform(self, transform: Any, batch: Any, stage: Stage) -> Any:
        """Return a batch with its inputs transformed.

        Args:
            transform: transform of the stage.
            batch: one batch on the device.
            stage: name of the split.
        """
        if isinstance(batch, tuple | list):
            return (transform(batch[0]), *batch[1:])
        return transform(batch)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return batches that are on the device already unchanged, since the loader moves whole blocks."""
        first = batch[0] if isinstance(batch, tuple | list) else batch
        if isinstance(first, Tensor) and first.device == device:
            return batch
        pointer = getattr(batch, "ptr", None)
        if isinstance(pointer, Tensor) and pointer.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply the transform of the running stage and the precision of the trainer, on the device."""
        return self.transformed(batch, "train" if self.trainer is not None and self.trainer.training else "val")

    def split_sizes(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        return {name: len(index) for name, index in self.splits.items()}

    def fingerprint(self) -> str:
        """Return a digest of the splits, by which a checkpoint recognises the data."""
        digest = hashlib.sha256(str(len(self.store)).encode())
        for name in ("train", "val", "test"):
            digest.update(self.splits[name].cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def contents(self) -> list[list[float]]:
        """Return sums over eight training samples, by which a checkpoint recognises the values of generated data."""
        self.load()
        host = cast(Store, self._host)
        if self._contents is None or self._contents[0] is not host:  # some modules scale their store again
            index = self._splits["train"]
            some = index[torch.linspace(0, len(index) - 1, min(8, len(index))).long()]
            self._contents = (host, content_sums(host.take(some)) if len(some) else [])
        return self._contents[1]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: the digest and the sizes of the splits, and sums over some samples."""
        return {"fingerprint": self.fingerprint(), "sizes": self.split_sizes(), "contents": self.contents()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint.

        Raises:
            DataError: if training would resume on another split or other values, or the state lacks a name; testing on
                other splits gives a warning.
        """
        missing = sorted(self.state_dict().keys() - state_dict.keys())
        if missing:
            raise DataError(
                f"the state of {type(self).__name__} in the checkpoint has no {', '.join(missing)}, only "
                f"{', '.join(sorted(state_dict))}: it is that of another version or of another data module. Resume "
                "with what wrote it, or start from the weights alone"
            )
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if state_dict.get("fingerprint") == self.fingerprint() or (self.predicting and self.prediction_split == "all"):
            if fitting and not _alike(state_dict["contents"], self.contents()):
                raise DataError(
                    f"the checkpoint was trained on splits of {self.split_sizes()} samples, as these are, but their "
                    "values differ; resume with the data that it was trained on: for generated data, with the same "
                    "seed and options"
                )
            return
        message = (
            f"the checkpoint was trained on splits of {state_dict.get('sizes')} samples, "
            f"these are {self.split_sizes()} or hold other samples"
        )
        if fitting:
            raise DataError(f"{message}; resume with the same data, seed and split options")
        warnings.warn(f"{message}; samples of its training split may be among those evaluated", stacklevel=2)


def _checked(result: Any, source: str) -> tuple[Store, dict[str, Any]]:
    """Return a store and splits after a check of their kind."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise DataError(f"{source} gave a {type(result).__name__}; a store and a dictionary of splits are needed")
    store, splits = result
    if not callable(getattr(store, "batches", None)):
        raise DataError(
            f"{source} gave a {type(store).__name__} as its store; a store gathers batches by index: give a "
            "TensorStore of tensors, a GraphStore.from_dataset(...) or another of graphseq.data"
        )
    if not isinstance(splits, dict):
        raise DataError(
            f"{source} gave a {type(splits).__name__} as splits; a dictionary of positions for train, val and test is "
            "needed"
        )
    return store, splits


def _alike(saved: list[list[float]], found: list[list[float]]) -> bool:
    """Return whether sums are equal up to what other processors and libraries make of generated values."""
    return len(saved) == len(found) and all(
        abs(a - b) <= 1e-3 * max(total, 1e-12)
        for (total, first), (other, second) in zip(saved, found, strict=True)
        for a, b in ((total, other), (first, second))
    )
