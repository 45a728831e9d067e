"""Data module of a stream of events: split by time, with history for lookups and negatives."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.data.base import Stage, StoreDataModule
from graphseq.data.events.adjacency import TemporalAdjacency
from graphseq.data.events.batching import Batching, FixedBatches, TBatches, checked_batching
from graphseq.data.events.loader import EventLoader
from graphseq.data.events.negatives import NegativeSampler, RandomNegatives, checked_sampler
from graphseq.data.events.store import EventStore
from graphseq.data.events.table import TemporalEvents

__all__ = ["TemporalDataModule", "chronological_split", "hold_out_nodes", "node_gaps"]

SplitBy = Literal["time_quantile", "count", "time_span"]

_FRACTION = 0.15
"""Share of validation and of test unless another is given."""


class TemporalDataModule(StoreDataModule):
    """Data module of one stream of events, split by time into training, validation and test.

    Batches are slices of the stream in its order and carry the history, so that a network can look up earlier
    neighbours of a node; they do not depend on the network. Statistics are those of the training events. Only one
    process is supported, since the state of networks is not shared.

    With ``inductive_ratio`` some nodes are held out of training: their events are removed from the training split and
    from the history in training; validation and test have the whole history.

    Args:
        events: stream of events, or a function without arguments that returns it.
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

    Yields:
        ``EventBatch`` with ``history``, ``neg_dst`` (B, M), in validation and test ``new_node``, and ``y`` and
        ``event_type`` if the stream has them.

    Raises:
        ValueError: if an argument is out of range or unknown.
        TypeError: if a rule of batching or a sampler of negatives is something else, such as its name.
        DataError: when the stream is read, if it is invalid or leaves a split empty.
        UnsupportedStrategyError: if the run has several processes.

    Example:
        >>> stream = TemporalEvents(torch.arange(20) % 3, 3 + torch.arange(20) % 4, torch.arange(20))
        >>> data = TemporalDataModule(stream, batch_size=5)
        >>> data.split_sizes(), [len(batch) for batch in data.batches("train")]
        ({'train': 14, 'val': 3, 'test': 3}, [5, 5, 4])
    """

    def __init__(
        self,
        events: TemporalEvents | Callable[[], TemporalEvents],
        batch_size: int = 200,
        *,
        eval_batch_size: int = 200,
        batching: Batching | None = None,
        eval_batching: Batching | None = None,
        val_fraction: float = _FRACTION,
        test_fraction: float = _FRACTION,
        split_by: SplitBy = "time_quantile",
        boundaries: Sequence[int | float] | None = None,
        inductive_ratio: float = 0.0,
        cut: Literal["batch", "time"] = "batch",
        train_negatives: NegativeSampler | None = None,
        eval_negatives: NegativeSampler | None = None,
        negatives: bool = True,
        max_events: int | None = None,
        seed: int = 0,
        device_resident: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(
            batch_size, eval_batch_size=eval_batch_size, seed=seed, device_resident=device_resident, drop_last=False
        )
        _check_options(val_fraction, test_fraction, split_by, inductive_ratio)
        if boundaries is not None:
            _check_boundaries(boundaries, val_fraction, test_fraction, split_by)
        if cut not in ("batch", "time"):
            raise ValueError(f"cut is {cut!r}; it must be 'batch' or 'time'")
        if max_events is not None and max_events < 1:
            raise ValueError(f"max_events is {max_events}; it must be at least 1, or None for all")
        for name, rule in (("batching", batching), ("eval_batching", eval_batching)):
            if rule is not None:
                checked_batching(name, rule)
        for name, sampler in (("train_negatives", train_negatives), ("eval_negatives", eval_negatives)):
            if sampler is not None:
                checked_sampler(name, sampler)
        if isinstance(eval_batching, TBatches):
            raise ValueError(
                "eval_batching is TBatches, which serve events out of order; evaluate in the order of time"
            )
        self._source = events
        self.batching = batching or FixedBatches(batch_size)
        self.eval_batching = eval_batching or FixedBatches(eval_batch_size)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_by: SplitBy = split_by
        self.boundaries = None if boundaries is None else tuple(boundaries)
        self.inductive_ratio = inductive_ratio
        self.cut: Literal["batch", "time"] = cut
        self._train_stop: int | None = None
        self.train_negatives = train_negatives or RandomNegatives(seed=seed)
        self.eval_negatives = eval_negatives or RandomNegatives(seed=seed)
        self.negatives = negatives
        self.max_events = max_events
        self._train_history: TemporalAdjacency | None = None
        self._prepared: dict[str, NegativeSampler] = {}
        self._statistics: dict[str, Any] = {}

    def read(self) -> tuple[EventStore, dict[str, Tensor]]:
        """Return the store with its history, and the positions of each split."""
        events = self._source if isinstance(self._source, TemporalEvents) else self._source()
        if not isinstance(events, TemporalEvents):
            raise DataError(f"the stream is a {type(events).__name__}; graphseq.data.TemporalEvents is needed")
        if self.max_events is not None:
            events = events[: self.max_events]
        if self.boundaries is None:
            splits = chronological_split(events.t, self.val_fraction, self.test_fraction, self.split_by)
        else:
            splits = _split_at(events, self.boundaries)
        columns = (events.src, events.dst, events.t, events.msg, events.num_nodes)
        self._train_stop = int(splits["train"][-1]) + 1 if len(splits["train"]) else None
        if self.inductive_ratio:
            splits["train"] = hold_out_nodes(events, splits["train"], self.inductive_ratio, self.seed)
            self._train_history = TemporalAdjacency(*columns, keep=splits["train"])
        seen = torch.zeros(events.num_nodes, dtype=torch.bool)
        seen[events.src[splits["train"]]] = True
        seen[events.dst[splits["train"]]] = True
        new_node = ~(seen[events.src] & seen[events.dst])
        return EventStore(events, TemporalAdjacency(*columns), self.cut, new_node), splits

    def setup(self, stage: str | None = None) -> None:
        """Read the data, move the store to the training device, and warn if the test split has only one class."""
        super().setup(stage)
        y, train, test = self.events.y, self.splits["train"], self.splits["test"]
        if stage != "fit" or y is None or not len(test):
            return
        # only a warning, since link prediction and runs without a test do not need both classes
        if bool((y[train] != y[train[0]]).any()) and bool((y[test] == y[test[0]]).all()):
            warnings.warn(
                f"all {len(test)} events of the test split have label {float(y[test[0]]):g}: a classifier that is "
                "fitted to these labels cannot be tested there, for AUC and AP are not defined; use other fractions, "
                "another split_by, or more events",
                stacklevel=2,
            )

    @property
    def events(self) -> TemporalEvents:
        """The stream, on the CPU."""
        self.load()
        return cast(EventStore, self._host).events

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.events.num_nodes

    @property
    def num_sources(self) -> int | None:
        """Number of sources of a bipartite graph; None if the graph is not bipartite."""
        return self.events.num_sources

    @property
    def num_edge_features(self) -> int:
        """Width of the features of events; 0 if there are none."""
        return self.events.num_edge_features

    @property
    def num_event_types(self) -> int:
        """Number of event types; 1 if events have no types."""
        return self.events.num_event_types

    @property
    def node_labels(self) -> Tensor:
        """Class of each node, constant in time, -1 if unknown, int64 (N,)."""
        labels = self.events.node_labels
        if labels is None:
            raise DataError(f"{type(self).__name__} has no classes of nodes; PrimarySchool and Bitcoin OTC have some")
        return labels

    @property
    def num_node_classes(self) -> int:
        """Number of classes in ``node_labels``."""
        return int(self.node_labels.max()) + 1

    @property
    def time_statistics(self) -> list[float]:
        """Mean and standard deviation of the time since a node's last event, for sources, then for destinations.

        Computed over the training events; for the first event of a node, since the start of the stream. A deviation
        of 0 is replaced by 1.
        """
        if "time" not in self._statistics:
            gaps = node_gaps(self.events, self.splits["train"])[0]
            pairs = [(float(gap.mean()), float(gap.std(correction=0))) for gap in gaps]
            self._statistics["time"] = [value for mean, deviation in pairs for value in (mean, deviation or 1.0)]
        return list(self._statistics["time"])

    @property
    def mean_gap(self) -> float:
        """Mean time between consecutive events of a node in training; 1 if this would be 0 or undefined."""
        if "gap" not in self._statistics:
            gaps, first = node_gaps(self.events, self.splits["train"])
            again = torch.cat(gaps)[~torch.cat(first)]
            self._statistics["gap"] = (float(again.mean()) if len(again) else 0.0) or 1.0
        return self._statistics["gap"]

    def loader(self, stage: Stage) -> EventLoader:
        """Return the loader of one stage.

        Args:
            stage: name of the split; ``predict`` is the test split.

        Raises:
            UnsupportedStrategyError: if the run has several processes.
        """
        split = "test" if stage == "predict" else stage
        trainer = self.trainer
        training = stage == "train"
        store = cast(EventStore, self.store)
        device = store.device if trainer is None else trainer.strategy.root_device
        return EventLoader(
            store.for_training(self._train_history or store.history) if training else store,
            self.batching if training else self.eval_batching,
            index=self.splits[split],
            negatives=self._negatives_of(split).to(device) if self.negatives else None,
            seed=self.seed,
            world_size=1 if trainer is None else trainer.world_size,
            device=device,
            stop=self._train_stop if training else None,
        )

    def _negatives_of(self, split: str) -> NegativeSampler:
        if split not in self._prepared:
            sampler = self.train_negatives if split == "train" else self.eval_negatives
            self._prepared[split] = sampler.prepare(self.events, self.splits["train"], split, self.splits[split])
        return self._prepared[split]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return batches that are on the device already unchanged, and restore times that the trainer has cast."""
        if isinstance(batch, EventBatch):
            times = cast(EventStore, self.store).events.t
            if batch.t.dtype != times.dtype:  # with true half precision Lightning casts every float of a dataclass
                batch = replace(batch, t=times[batch.e_id.to(times.device)].to(batch.e_id.device))
            if batch.src.device == device:
                return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def fingerprint(self) -> str:
        """Return a digest of stream and splits, by which a checkpoint recognises the data."""
        if "digest" not in self._statistics:
            digest = hashlib.sha256(super().fingerprint().encode())
            for column in (self.events.src, self.events.dst, self.events.t):
                digest.update(column.contiguous().numpy().tobytes())
            self._statistics["digest"] = digest.hexdigest()[:16]
        return self._statistics["digest"]


def chronological_split(t: Tensor, val_fraction: float, test_fraction: float, by: SplitBy) -> dict[str, Tensor]:
    """Split a stream into training, validation and test by time, without dividing events of equal time.

    Source: arXiv 2006.10637 for ``time_quantile``: training up to the quantile, inclusive.

    Args:
        t: time of each event, non-decreasing (E,).
        val_fraction: share of the events (or of the time) before the test split, in [0, 1).
        test_fraction: share of the events (or of the time) at the end, in [0, 1).
        by: rule for the boundaries, as ``split_by`` of :class:`TemporalDataModule`; ``count`` moves a boundary within
            events of equal time after them.

    Raises:
        ValueError: if an argument is out of range, or no training events are left.
        DataError: if a split with a fraction above 0 has no events.

    Example:
        >>> split = chronological_split(torch.tensor([0, 1, 2, 3, 3, 3, 4, 5, 6, 9]), 0.3, 0.2, "count")
        >>> [part.tolist() for part in split.values()]
        [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]
    """
    _check_options(val_fraction, test_fraction, by, inductive_ratio=0.0)
    # rounded, so that 1 - 0.15 - 0.15 equals 0.7
    shares = [round(1 - val_fraction - test_fraction, 12), round(1 - test_fraction, 12)]
    if by == "count":
        ends = [min(max(round(share * len(t)), 1), len(t)) for share in shares]
        last = t[torch.tensor(ends) - 1]
    elif by == "time_span":
        start, stop = float(t[0]), float(t[-1])
        last = torch.tensor([start + share * (stop - start) for share in shares], dtype=torch.float64)
    else:
        last = torch.from_numpy(np.quantile(t.cpu().numpy(), np.clip(shares, 0, 1)))
    places = torch.searchsorted(t.cpu().to(torch.float64), last.to(torch.float64), right=True)
    bounds = [0, *places.tolist(), len(t)]
    if not test_fraction:
        bounds[2] = len(t)
    if not val_fraction:
        bounds[1] = bounds[2]
    fractions = (shares[0], val_fraction, test_fraction)
    split = {}
    for name, fraction, low, high in zip(("train", "val", "test"), fractions, bounds[:-1], bounds[1:], strict=True):
        if fraction > 0 and low >= high:
            raise DataError(
                f"{len(t)} events at {len(t.unique())} times leave the {name} split empty at fractions train "
                f"{shares[0]:.3g}, val {val_fraction:.3g}, test {test_fraction:.3g} by {by}; events of equal time stay "
                "together. Give other fractions, another split_by, or more events"
            )
        split[name] = torch.arange(low, high)
    return split


def _split_at(events: TemporalEvents, boundaries: Sequence[int | float]) -> dict[str, Tensor]:
    """Split a stream at given times; events at a boundary are in the later split."""
    t, offset = events.t, events.time_offset
    whole = not t.is_floating_point()
    begins = []
    for boundary in boundaries:
        # integer times are compared as integers, without rounding
        start = math.ceil(boundary) - offset if whole and isinstance(offset, int) else boundary - offset
        inside = min(max(math.ceil(start) if whole else start, t[0].item()), t[-1].item() + 1)
        begins.append(int(torch.searchsorted(t, torch.tensor(inside, dtype=t.dtype))))
    bounds = [0, *begins, len(t)]
    split = {name: torch.arange(bounds[rank], bounds[rank + 1]) for rank, name in enumerate(("train", "val", "test"))}
    empty = [name for name, index in split.items() if not len(index)]
    if empty:
        raise DataError(
            f"boundaries {', '.join(map(str, boundaries))} leave the {' and '.join(empty)} split empty: the stream's "
            f"times are {t[0].item() + offset} to {t[-1].item() + offset} (time_offset {offset} included). Give the "
            "times at which validation and test begin, in the same unit"
        )
    return split


def hold_out_nodes(events: TemporalEvents, train: Tensor, ratio: float, seed: int) -> Tensor:
    """Return the training events without those of randomly held-out nodes.

    The nodes are drawn among those that occur after the last training event.

    Source: arXiv 2006.10637 (its inductive setting).

    Args:
        events: stream of events.
        train: positions of the training events, the first of the stream, int64.
        ratio: share of all occurring nodes that is held out of training, in [0, 1).
        seed: seed of the random choice of nodes.

    Raises:
        DataError: if there are no nodes to draw, or no events are left.

    Example:
        >>> stream = TemporalEvents(torch.tensor([0, 1, 2, 0]), torch.tensor([3, 4, 3, 3]), torch.arange(4))
        >>> hold_out_nodes(stream, torch.arange(3), 0.2, seed=0).tolist() in ([1], [1, 2])
        True
    """
    after = int(train[-1]) + 1
    candidates = torch.cat([events.src[after:], events.dst[after:]]).unique()
    occurring = len(torch.cat([events.src, events.dst]).unique())
    count = min(round(ratio * occurring), len(candidates))
    if not count:
        raise DataError(
            f"inductive_ratio {ratio} of {occurring} nodes keeps none from training, {len(candidates)} occur after it; "
            "give a larger ratio, or 0"
        )
    chosen = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))[:count]]
    held = torch.zeros(events.num_nodes, dtype=torch.bool)
    held[chosen] = True
    kept = train[~(held[events.src[train]] | held[events.dst[train]])]
    if not len(kept):
        raise DataError(
            f"inductive_ratio {ratio} keeps {count} of {occurring} nodes from training, and every training event has "
            "one of them; give a smaller ratio"
        )
    return kept


def node_gaps(events: TemporalEvents, index: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return for each event the time since the previous event of its source and of its destination, in either role.

    Args:
        events: stream of events.
        index: positions of the events to use, ascending, int64 (M,).

    Returns:
        gaps of sources and of destinations, float64 (M,), and whether each is the first of its node, bool (M,);
        the gap is then counted from time 0.

    Example:
        >>> stream = TemporalEvents(torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]), torch.tensor([0, 5, 9]))
        >>> (source, destination), first = node_gaps(stream, torch.arange(3))
        >>> source.tolist(), destination.tolist(), first[0].tolist()
        ([0.0, 5.0, 9.0], [0.0, 5.0, 4.0], [True, False, True])
    """
    src, dst, t = events.src[index], events.dst[index], events.t[index]
    count = len(index)
    # entry k is the source of event k, entry count + k its destination; by node, then by event
    node, event = torch.cat([src, dst]), torch.arange(count).repeat(2)
    order = (node * count + event).argsort(stable=True)
    before = order.roll(1)
    fresh = node[order] != node[before]
    fresh[0] = True
    # the second entry of a self-loop stands behind the first and takes what that one found
    gap = (t[event[order]] - t[event[before]]).double()
    gap = torch.where(fresh, t[event[order]].double(), gap)
    twice = ~fresh & (event[order] == event[before])
    gap[twice], fresh[twice] = gap.roll(1)[twice], fresh.roll(1)[twice]
    gaps, first = torch.empty_like(gap), torch.empty_like(fresh)
    gaps[order], first[order] = gap, fresh
    return (gaps[:count], gaps[count:]), (first[:count], first[count:])


def _check_options(val_fraction: float, test_fraction: float, split_by: str, inductive_ratio: float) -> None:
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it must be in [0, 1)")
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on; "
            "their sum must be below 1"
        )
    if split_by not in get_args(SplitBy):
        raise ValueError(f"split_by is {split_by!r}; it must be one of {', '.join(get_args(SplitBy))}")
    if not 0 <= inductive_ratio < 1:
        raise ValueError(f"inductive_ratio is {inductive_ratio}; it must be in [0, 1)")


def _check_boundaries(
    boundaries: Sequence[int | float], val_fraction: float, test_fraction: float, split_by: str
) -> None:
    if (val_fraction, test_fraction, split_by) != (_FRACTION, _FRACTION, "time_quantile"):
        raise ValueError(
            f"boundaries are given, and val_fraction {val_fraction}, test_fraction {test_fraction}, split_by "
            f"{split_by!r} besides; give times or fractions, not both"
        )
    numbers = not isinstance(boundaries, str) and all(isinstance(time, int | float) for time in boundaries)
    if not numbers or len(boundaries) != 2 or not all(map(math.isfinite, boundaries)) or boundaries[0] >= boundaries[1]:
        raise ValueError(
            f"boundaries are {boundaries!r}; they must be two finite times, the first of validation and the first of "
            "test, ascending"
        )
