"""Data module of texts whose windows are corrupted for a network that fills them in."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Unpack

from torch import Tensor

from graphseq.core.batches import PrefixBatch, SequenceBatch, TokenBatch
from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions, Stage
from graphseq.data.denoising.mixture import Denoiser, MixtureOfDenoisers
from graphseq.data.loader import BatchLoader
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.text.module import TextDataModule
from graphseq.data.text.store import TokenStore

__all__ = ["DenoisingDataModule"]


class DenoisingDataModule(PaddedDataModule):
    """Windows of a text, each corrupted by one of several denoisers when its batch is taken.

    Training windows are corrupted anew in each epoch, from a number of the batch that checkpoints hold; those of an
    evaluation always in the same way. With ``layout="pairs"`` the task is
    :class:`graphseq.tasks.SequenceToSequence`, with ``joined`` :class:`graphseq.tasks.LanguageModeling`.

    Args:
        text: data module of the text, such as :class:`TinyShakespeareDataModule`; its own batch size and transforms
            have no effect.
        denoisers: denoisers of training; None for those of UL2, :func:`ul2_denoisers`.
        eval_denoisers: denoisers of validation, test and prediction; None for those of training.
        layout: ``pairs`` of input and target, or both ``joined`` to one text with a prefix.
        num_sentinels: number of sentinels, at least 2.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``pairs``: ``SequenceBatch`` with x and y int64 (B, T + 1); ``joined``: ``PrefixBatch`` with ids (B, 2 T + 3);
        T up to ``length + 1`` of the text.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if ``text`` is no data module of a text.
        DataError: when the text is read, if it may need more sentinels than there are.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> data = DenoisingDataModule(SyntheticTextDataModule(200, length=31), batch_size=4)
        >>> batch = next(data.batches("val"))
        >>> batch.x.shape, batch.y.shape
        (torch.Size([4, 33]), torch.Size([4, 33]))
    """

    def __init__(
        self,
        text: TextDataModule,
        denoisers: Sequence[Denoiser] | None = None,
        *,
        eval_denoisers: Sequence[Denoiser] | None = None,
        layout: Literal["pairs", "joined"] = "pairs",
        num_sentinels: int = 100,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if not isinstance(text, TextDataModule):
            raise TypeError(f"text is a {type(text).__name__}; give a data module of a text")
        if text.in_streams:
            raise ValueError("text has order 'streams'; windows that are corrupted do not go on: leave it out")
        self.text, self.layout, self.num_sentinels = text, layout, num_sentinels
        self.denoisers = {"train": denoisers, "eval": denoisers if eval_denoisers is None else eval_denoisers}
        for name in self.denoisers:
            self._mixture(name, 1)  # wrong arguments are refused now
        self._mixtures: dict[str, MixtureOfDenoisers] = {}
        self._taken = 0  # training batches so far
        self._evaluated = 0  # batches of this evaluation so far

    def _mixture(self, name: str, vocab_size: int) -> MixtureOfDenoisers:
        return MixtureOfDenoisers(
            vocab_size,
            self.denoisers[name],
            layout=self.layout,
            num_sentinels=self.num_sentinels,
            # evaluations do not see the random numbers of training
            seed=2 * self.seed + (name == "eval"),
        )

    def mixture(self, stage: Stage = "train") -> MixtureOfDenoisers:
        """Return the mixture of a stage.

        Args:
            stage: name of the split.
        """
        name = "train" if stage == "train" else "eval"
        if name not in self._mixtures:
            self._mixtures[name] = self._mixture(name, self.text.vocab_size)
        return self._mixtures[name]

    @property
    def vocab_size(self) -> int:
        """Number of tokens: those of the text, modes, separator and sentinels."""
        return self.mixture().num_tokens

    @property
    def num_outputs(self) -> int:
        """Number of classes of a prediction: the number of tokens."""
        return self.vocab_size

    @property
    def num_symbols(self) -> int:
        """Number of symbols that a network may write: the number of tokens."""
        return self.vocab_size

    def read(self) -> tuple[TokenStore, dict[str, Tensor]]:
        """Return the tokens of the text and its splits."""
        self.text.load()
        store = self.text.store
        if not isinstance(store, TokenStore):
            raise DataError(f"{type(self.text).__name__} has a {type(store).__name__}; a TokenStore is needed")
        for stage in ("train", "val"):
            self.mixture(stage).check_length(int(store.lengths.max()))
        return store, dict(self.text.splits)

    def loader(self, stage: Stage) -> BatchLoader:
        """Return the loader of one stage; each pass of an evaluation begins with the first random numbers.

        Args:
            stage: name of the split.
        """
        plain = super().loader(stage)
        return plain if stage == "train" else _EvaluationLoader(plain, self._begin_evaluation)

    def _begin_evaluation(self) -> None:
        self._evaluated = 0

    def transformed(self, batch: Any, stage: Stage) -> SequenceBatch | PrefixBatch:
        """Return the corrupted batch.

        Args:
            batch: windows of the text.
            stage: name of the split.
        """
        plain: TokenBatch = super().transformed(batch, stage)
        if stage == "train":
            number, self._taken = self._taken, self._taken + 1
        else:
            number, self._evaluated = self._evaluated, self._evaluated + 1
        run = self.trainer
        # processes have rows of their own, which must not all be corrupted alike
        return self.mixture(stage)(plain, number if run is None else number * run.world_size + run.global_rank)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, vocabulary of the text, and number of training batches so far."""
        text = self.text.state_dict()["vocabulary"]
        return {**super().state_dict(), "vocabulary": text, "taken": self._taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and go on with its random numbers.

        Raises:
            DataError: if training would resume on another split or another vocabulary.
        """
        super().load_state_dict(state_dict)
        if state_dict["vocabulary"] != self.text.vocabulary.state_dict():
            raise DataError("the vocabulary of the checkpoint is that of another text; give the text of the training")
        self._taken = int(state_dict["taken"])


class _EvaluationLoader(BatchLoader):
    """Loader that says when a pass begins."""

    def __init__(self, plain: BatchLoader, begin: Callable[[], None]) -> None:
        vars(self).update(vars(plain))
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        yield from super().__iter__()
