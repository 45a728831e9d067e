"""Training procedures: one ``LightningModule`` per procedure, the network handed in."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.tasks.base import Step as Step
    from graphseq.tasks.base import Task as Task
    from graphseq.tasks.base import load as load
    from graphseq.tasks.classification import Classification as Classification
    from graphseq.tasks.node_classification import NodeClassification as NodeClassification
    from graphseq.tasks.regression import Regression as Regression
    from graphseq.tasks.stream import StreamTask as StreamTask
    from graphseq.tasks.temporal import TemporalLinkPrediction as TemporalLinkPrediction

_FILES: dict[str, str] = {
    "Classification": "classification",
    "NodeClassification": "node_classification",
    "Regression": "regression",
    "Step": "base",
    "StreamTask": "stream",
    "Task": "base",
    "TemporalLinkPrediction": "temporal",
    "load": "base",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
