"""Arguments that named streams of events pass on to :class:`TemporalDataModule`."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from graphseq.data.events.batching import Batching
from graphseq.data.events.negatives import NegativeSampler
from graphseq.data.events.splits import SplitBy

__all__: list[str] = []


class EventOptions(TypedDict, total=False):
    """Arguments that named streams pass on to :class:`TemporalDataModule`, for ``**options: Unpack[EventOptions]``.

    Args:
        batch_size: number of training events of one batch, at least 1.
        eval_batch_size: number of events of one batch in validation and test; results depend on it, so keep it when
            ``batch_size`` is varied.
        batching: rule of the training batches, in place of ``batch_size``.
        eval_batching: rule of the batches of validation and test, in place of ``eval_batch_size``.
        val_fraction: share of the events (or of the time) before the test split, in [0, 1).
        test_fraction: share of the events (or of the time) at the end, in [0, 1).
        split_by: rule for the boundaries of the splits: quantiles of the times (``time_quantile``, the customary
            protocol), fractions of the number of events (``count``), or of the time from the first to the last
            (``time_span``). Events of equal time are never divided.
        boundaries: times at which validation and test begin, in place of the fractions and ``split_by``; they are times
            of the source, before ``time_offset`` was subtracted.
        inductive_ratio: share of all nodes that are held out of training, drawn among those that occur after it.
        cut: part of the history that a batch may look up, ``batch`` or ``time``, see :class:`EventStore`.
        train_negatives: sampler of the negatives of training batches; None for ``RandomNegatives``.
        eval_negatives: sampler of the negatives of validation and test; None for ``RandomNegatives``.
        negatives: whether batches have negatives; node classification needs none.
        max_events: number of events to use from the beginning of the stream, for small experiments; None for all.
        seed: seed of the choice of held-out nodes, of random batches and of the default negatives.
        device_resident: whether to move the events to the device once, as in :class:`StoreDataModule`; the history is
            always moved.

    Example:
        >>> options: EventOptions = {"batch_size": 100}
    """

    batch_size: int
    eval_batch_size: int
    batching: Batching | None
    eval_batching: Batching | None
    val_fraction: float
    test_fraction: float
    split_by: SplitBy
    boundaries: Sequence[int | float] | None
    inductive_ratio: float
    cut: Literal["batch", "time"]
    train_negatives: NegativeSampler | None
    eval_negatives: NegativeSampler | None
    negatives: bool
    max_events: int | None
    seed: int
    device_resident: bool | Literal["auto"]
