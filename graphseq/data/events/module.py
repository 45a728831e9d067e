"""Data module of a stream of events: split by time, with history for lookups and negatives."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch_geometric.data import TemporalData

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.core.numbering import NodeNumbering
from graphseq.data.base import Stage, StoreDataModule
from graphseq.data.events.adjacency import TemporalAdjacency
from graphseq.data.events.batching import Batching, FixedBatches, TBatches, checked_batching
from graphseq.data.events.loader import EventLoader
from graphseq.data.events.negatives import NegativeSampler, RandomNegatives, checked_sampler
from graphseq.data.events.splits import (
    FRACTION,
    SplitBy,
    check_boundaries,
    check_split_options,
    chronological_split,
    hold_out_nodes,
    node_gaps,
    split_at,
)
from graphseq.data.events.store import EventStore
from graphseq.data.events.table import TemporalEvents

__all__ = ["TemporalDataModule"]


class TemporalDataModule(StoreDataModule):
    """Data module of one stream of events, split by time into training, validation and test.

    Batches are slices of the stream in its order and carry the history, so that a network can look up earlier
    neighbours of a node; they do not depend on the network. Statistics are those of the training events. Only one
    process is supported, since the state of networks is not shared.

    With ``inductive_ratio`` some nodes are held out of training: their events are removed from the training split and
    from the history in training; validation and test have the whole history.

    Args:
        events: stream of events, a PyG ``TemporalData``, or a function without arguments that returns one of them.
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
        TypeError: if ``events`` is something else, or a rule of batching or a sampler of negatives is, such as its
            name.
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
        events: TemporalEvents | TemporalData | Callable[[], TemporalEvents | TemporalData],
        batch_size: int = 200,
        *,
        eval_batch_size: int = 200,
        batching: Batching | None = None,
        eval_batching: Batching | None = None,
        val_fraction: float = FRACTION,
        test_fraction: float = FRACTION,
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
        check_split_options(val_fraction, test_fraction, split_by, inductive_ratio)
        if boundaries is not None:
            check_boundaries(boundaries, val_fraction, test_fraction, split_by)
        if cut not in ("batch", "time"):
            raise ValueError(f"cut is {cut!r}; it must be 'batch' or 'time'")
        if max_events is not None and (not isinstance(max_events, int) or max_events < 1):
            raise ValueError(f"max_events is {max_events!r}; it must be an integer of at least 1, or None for all")
        if not callable(events) and not isinstance(events, TemporalEvents):  # TemporalData can be called, too
            raise TypeError(
                f"events is a {type(events).__name__}; give TemporalEvents, PyG's TemporalData, or a function without "
                "arguments that returns one. TemporalEvents.from_frame takes a pandas DataFrame, and "
                "EventCSVDataModule the path of a file"
            )
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
        self._numbering: NodeNumbering | None = None
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
        # TemporalData can be called, too
        given = self._source if isinstance(self._source, TemporalEvents | TemporalData) else self._source()
        events = TemporalEvents.from_temporal_data(given) if isinstance(given, TemporalData) else given
        if not isinstance(events, TemporalEvents):
            raise DataError(
                f"the stream is a {type(events).__name__}; graphseq.data.TemporalEvents or PyG's TemporalData is needed"
            )
        if self._numbering is None and self.trained("nodes") and events.node_ids is not None:
            self._numbering = NodeNumbering.from_state(self.trained("nodes"))
        if self._numbering is not None:
            events = events.renumbered(self._numbering)
        if self.max_events is not None:
            events = events[: self.max_events]
        splits = self._split(events)
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

    def _split(self, events: TemporalEvents) -> dict[str, Tensor]:
        try:
            if self.boundaries is not None:
                return split_at(events, self.boundaries)
            return chronological_split(events.t, self.val_fraction, self.test_fraction, self.split_by)
        except DataError:
            if self.divides(labelled=True):
                raise
            return {name: torch.arange(0) for name in ("train", "val", "test")}  # a few events, all to be predicted

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
        self._measure_gaps()
        return list(self._statistics["time"])

    @property
    def mean_gap(self) -> float:
        """Mean time between consecutive events of a node in training; 1 if this would be 0 or undefined."""
        self._measure_gaps()
        return self._statistics["gap"]

    def _measure_gaps(self) -> None:
        if "gap" in self._statistics:
            return
        gaps, first = node_gaps(self.events, self.splits["train"])
        pairs = [(float(gap.mean()), float(gap.std(correction=0))) for gap in gaps]
        self._statistics["time"] = [value for mean, deviation in pairs for value in (mean, deviation or 1.0)]
        again = torch.cat(gaps)[~torch.cat(first)]
        self._statistics["gap"] = (float(again.mean()) if len(again) else 0.0) or 1.0

    def loader(self, stage: Stage) -> EventLoader:
        """Return the loader of one stage.

        Args:
            stage: name of the split; ``predict`` is the test split.

        Raises:
            UnsupportedStrategyError: if the run has several processes.
        """
        split = self.prediction_split if stage == "predict" else stage
        trainer = self.trainer
        training = stage == "train"
        store = cast(EventStore, self.store)
        device = store.device if trainer is None else trainer.strategy.root_device
        return EventLoader(
            store.for_training(self._train_history or store.history) if training else store,
            self.batching if training else self.eval_batching,
            index=self.split_positions(split),
            negatives=self._negatives_of(split).to(device) if self.negatives else None,
            seed=self.seed,
            world_size=1 if trainer is None else trainer.world_size,
            device=device,
            stop=self._train_stop if training else None,
        )

    def _negatives_of(self, split: str) -> NegativeSampler:
        if split not in self._prepared:
            sampler = self.train_negatives if split == "train" else self.eval_negatives
            # all events are those of no stage
            name, index = "predict" if split == "all" else split, self.split_positions(split)
            train = self.splits["train"] if len(self.splits["train"]) else index
            self._prepared[split] = sampler.prepare(self.events, train, name, index)
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

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, and the ids of nodes if they are not their numbers."""
        events = self.events
        nodes = None if events.node_ids is None else NodeNumbering(events.node_ids, events.num_sources)
        return {**super().state_dict(), **({} if nodes is None else {"nodes": nodes.state()})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and number nodes as in its training.

        Raises:
            DataError: if training would resume on another split, or an event has a node that training did not know.
        """
        super().load_state_dict(state_dict)
        if "nodes" not in state_dict or self.events.node_ids is None:
            return
        trained = NodeNumbering.from_state(state_dict["nodes"])
        if trained == NodeNumbering(self.events.node_ids, self.events.num_sources):
            return
        self._numbering = trained
        self._host, self._splits = self.read()
        self._resident = None if self._resident is None else self._host.to(self._resident.device)
        self._prepared, self._statistics = {}, {}

    def fingerprint(self) -> str:
        """Return a digest of stream and splits, by which a checkpoint recognises the data."""
        if "digest" not in self._statistics:
            digest = hashlib.sha256(super().fingerprint().encode())
            for column in (self.events.src, self.events.dst, self.events.t):
                digest.update(column.contiguous().numpy().tobytes())
            self._statistics["digest"] = digest.hexdigest()[:16]
        return self._statistics["digest"]
