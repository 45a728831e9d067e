"""Protocols: the methods and attributes that tasks require of networks and data modules."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from typing_extensions import get_protocol_members

from graphseq.core.events import EventBatch
from graphseq.core.vocabulary import Vocabulary
from graphseq.core.windows import SeriesSpan

__all__ = [
    "CountedClasses",
    "DataSource",
    "EmbeddingNetwork",
    "EventSource",
    "FittedNetwork",
    "NamedSeries",
    "PointingNetwork",
    "PromptableEncoder",
    "SequenceNetwork",
    "SeriesSource",
    "StreamNetwork",
    "StreamedText",
    "TeacherForcedNetwork",
    "TextSource",
    "Undecayed",
    "missing_members",
]


def missing_members(thing: object, protocol: type) -> list[str]:
    """Return the names that a protocol requires and an object lacks, sorted.

    Args:
        thing: any object.
        protocol: a ``typing.Protocol``.

    Example:
        >>> missing_members([], SequenceNetwork)
        ['forward']
    """
    return sorted(name for name in get_protocol_members(protocol) if not hasattr(thing, name))


# networks


@runtime_checkable
class StreamNetwork(Protocol):
    """Network whose state depends on the events it has processed, such as :class:`graphseq.models.MemoryNetwork`.

    Example:
        >>> from graphseq.models import JODIE
        >>> isinstance(JODIE(num_nodes=3), StreamNetwork)
        True
    """

    def forward_with_update(self, batch: EventBatch) -> tuple[Tensor, Any]:
        """Return the output for a batch and the update that :meth:`commit` writes; the state is left unchanged.

        Args:
            batch: the next events of the stream.
        """

    def commit(self, update: Any) -> None:
        """Write the events of a batch into the state.

        Args:
            update: update that :meth:`forward_with_update` returned.
        """

    def reset_state(self) -> None:
        """Set the state to that before the first event; weights are left unchanged."""

    def state_buffers(self) -> dict[str, Tensor]:
        """Return a copy of the state, by name."""

    def load_state_buffers(self, buffers: dict[str, Tensor]) -> None:
        """Restore a state.

        Args:
            buffers: copy of the state that :meth:`state_buffers` returned.
        """


@runtime_checkable
class EmbeddingNetwork(StreamNetwork, Protocol):
    """Network with a state whose embeddings of nodes can be read.

    Example:
        >>> from graphseq.models import JODIE
        >>> isinstance(JODIE(num_nodes=3), EmbeddingNetwork)
        True
    """

    def encode(self, batch: EventBatch) -> Any:
        """Return an update with embeddings of the nodes of a batch; the state is left unchanged.

        Args:
            batch: events whose nodes are embedded.
        """

    def decoded(self, update: Any) -> Tensor:
        """Return the embeddings that a decoder reads, one row for each row of the update's plan, (R, D).

        Args:
            update: update that :meth:`encode` returned.
        """


@runtime_checkable
class PromptableEncoder(Protocol):
    """Graph encoder in two parts, between which prompts are added to the node features.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> isinstance(GraphEncoder(3), PromptableEncoder)
        True
    """

    prompt_channels: int
    """Width of embedded node features, and so of a prompt."""
    node_channels: int
    """Width of the vector of a node."""
    graph_channels: int
    """Width of the vector of a graph."""

    def embed(self, x: Tensor, edge_attr: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the features that the first convolution takes: of nodes, (N, prompt_channels), and of edges or None.

        Args:
            x: node features.
            edge_attr: edge features.
        """

    def encode_embedded(
        self,
        h: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels).

        Args:
            h: embedded node features, with prompts added to them.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node.
            edge: embedded edge features.
            ptr: first node of each graph and, last, the number of nodes.
        """


@runtime_checkable
class SequenceNetwork(Protocol):
    """Network over sequences, as ``torch.nn.LSTM(batch_first=True)`` is called.

    Example:
        >>> isinstance(torch.nn.LSTM(2, 3, batch_first=True), SequenceNetwork)
        True
    """

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return one vector for each step (B, T, D) and the state after the last step.

        Args:
            x: inputs (B, T, F), or token ids (B, T).
            state: state after the preceding steps; None at the start of a sequence.
        """


@runtime_checkable
class PointingNetwork(Protocol):
    """Network that writes symbols or positions for each input, such as :class:`graphseq.models.PointerNet`.

    Example:
        >>> from graphseq.models import PointerNet
        >>> isinstance(PointerNet(2, 8), PointingNetwork)
        True
    """

    def forward(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return logits of each step of the outputs, (B, M, S + 1), each from the true symbols before it.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,).
            y: symbols of the outputs, int64 (B, m), -100 after the last of each.
        """

    def slots(self, y: Tensor) -> Tensor:
        """Return the slot of the logits that each step has to write, int64 (B, M); -100 for none.

        Args:
            y: symbols of the outputs, int64 (B, m), -100 after the last of each.
        """

    def decode(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        beam_size: int = 1,
        mask: Any = "none",
        max_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs that the network writes, int64 (B, m), and their log-probabilities (B,).

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,).
            beam_size: number of partial outputs of the beam search.
            mask: constraint on the symbols.
            max_steps: largest number of symbols.
        """


@runtime_checkable
class FittedNetwork(Protocol):
    """Forecasting network that computes a part of itself from the training span, before the first step.

    Example:
        >>> from graphseq.models import ReGENN
        >>> isinstance(ReGENN(num_variables=2, window=3, horizon=1), FittedNetwork)
        True
    """

    def fit_to(self, span: SeriesSpan) -> None:
        """Compute what depends on the training span.

        Args:
            span: series of the training span.
        """


@runtime_checkable
class TeacherForcedNetwork(Protocol):
    """Forecasting network that decodes step by step, and can read true values in place of its own.

    Example:
        >>> from graphseq.models import ReGENN
        >>> isinstance(ReGENN(num_variables=2, window=3, horizon=1), TeacherForcedNetwork)
        False
    """

    def forward_with_target(self, x: Tensor, target: Tensor, share: float, known: Tensor | None = None) -> Tensor:
        """Return the forecast, decoded from true values for a random share of the steps.

        Args:
            x: past values (B, S, T, V).
            target: true future values (B, S, Z, K), NaN where unknown.
            share: probability with which a step is decoded from the true value, in [0, 1].
            known: covariates of past and future steps (B, T + Z, F); None without covariates.
        """


# data


class Samples(Protocol):
    """A data set whose samples are taken by index.

    Example:
        >>> def first(samples: Samples) -> object:
        ...     return samples.take(torch.tensor([0]))
    """

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Any:
        """Return the batch of some samples.

        Args:
            index: positions of the samples, int64 (B,).
        """


@runtime_checkable
class DataSource(Protocol):
    """Data module with one store and an index tensor for each split, as those of graphseq.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> isinstance(SyntheticTextDataModule(), DataSource)
        True
    """

    @property
    def store(self) -> Samples:
        """The data set."""

    @property
    def splits(self) -> Mapping[str, Tensor]:
        """Positions of the samples of each split, int64."""

    def transformed(self, batch: Any, stage: Any) -> Any:
        """Return a batch after the transform of a stage.

        Args:
            batch: a batch on the device.
            stage: name of the split: ``train``, ``val`` or ``test``.
        """

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return a batch on a device.

        Args:
            batch: any batch.
            device: target device.
            dataloader_idx: number of the loader that the batch came from.
        """


@runtime_checkable
class PredictsSplit(Protocol):
    """Data module that knows which of its splits is to be predicted, as those of graphseq.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> isinstance(SyntheticTextDataModule(), PredictsSplit)
        True
    """

    @property
    def predicting(self) -> bool:
        """Whether the data are read to be predicted from a checkpoint."""

    @property
    def prediction_split(self) -> str:
        """Name of the split, ``all`` for all samples."""

    def split_positions(self, split: str) -> Tensor:
        """Return the positions of the samples of a split, int64.

        Args:
            split: name of the split, ``all`` for all samples.
        """


@runtime_checkable
class CountedClasses(Protocol):
    """Data module that counts the classes of its training split.

    Example:
        >>> class Two:
        ...     class_weights = [0.5, 2.0]
        >>> isinstance(Two(), CountedClasses)
        True
    """

    @property
    def class_weights(self) -> Sequence[float]:
        """Weight of each class, inversely proportional to its number of samples."""


@runtime_checkable
class ShufflingLoader(Protocol):
    """Loader that says whether it shuffles, such as that of :class:`graphseq.data.TabularDataModule`.

    Example:
        >>> from types import SimpleNamespace
        >>> isinstance(SimpleNamespace(shuffle=True), ShufflingLoader)
        True
    """

    @property
    def shuffle(self) -> bool:
        """Whether the order of the samples is drawn at random."""


class Labelled(Protocol):
    """Events that may have labels.

    Example:
        >>> def labels(events: Labelled) -> Tensor | None:
        ...     return events.y
    """

    @property
    def y(self) -> Tensor | None:
        """Label of each event (E,), or None."""


@runtime_checkable
class EventSource(Protocol):
    """Data module over the events of one stream.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> isinstance(SyntheticEventsDataModule(num_events=300), EventSource)
        True
    """

    @property
    def events(self) -> Labelled:
        """All events, in the order of time."""

    @property
    def splits(self) -> Mapping[str, Tensor]:
        """Positions of the events of each split, int64."""

    def loader(self, stage: Any) -> Iterable[EventBatch]:
        """Return the loader of a split.

        Args:
            stage: name of the split: ``train``, ``val`` or ``test``.
        """


@runtime_checkable
class TextSource(Protocol):
    """Data module of text, such as :class:`graphseq.data.TextDataModule`.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> isinstance(SyntheticTextDataModule(200), TextSource)
        True
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary made of the tokens of the training split."""


@runtime_checkable
class Undecayed(Protocol):
    """Layer that names parameters of its own that tasks exempt from weight decay.

    Example:
        >>> from graphseq.nn import PolyNorm
        >>> PolyNorm().undecayed
        ('coefficients',)
    """

    undecayed: tuple[str, ...]


@runtime_checkable
class StreamedText(Protocol):
    """Data module of text that says whether its batches go on from one to the next.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> isinstance(SyntheticTextDataModule(200), StreamedText)
        True
    """

    @property
    def in_streams(self) -> bool:
        """Whether each row of a batch goes on where the same row of the batch before ended."""


@runtime_checkable
class SeriesSource(Protocol):
    """Data module of time series, such as :class:`graphseq.data.SeriesDataModule`.

    Example:
        >>> from graphseq.data import DriverPanelDataModule
        >>> isinstance(DriverPanelDataModule(steps=200), SeriesSource)
        True
    """

    def training_span(self) -> SeriesSpan:
        """Return the series of the training span."""


@runtime_checkable
class NamedSeries(Protocol):
    """Data module of time series that knows their names and times.

    Example:
        >>> from graphseq.data import DriverPanelDataModule
        >>> isinstance(DriverPanelDataModule(steps=200), NamedSeries)
        True
    """

    @property
    def series_names(self) -> list[str]:
        """Name of each series."""

    @property
    def target_names(self) -> list[str]:
        """Name of each variable to predict."""

    def times_of(self, steps: Tensor) -> np.ndarray | None:
        """Return the times of steps; None for series without times.

        Args:
            steps: numbers of steps, int64.
        """
