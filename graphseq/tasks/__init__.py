"""Training procedures: one ``LightningModule`` per procedure, the network handed in."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.tasks.base import Step as Step
    from graphseq.tasks.base import Task as Task
    from graphseq.tasks.base import load as load
    from graphseq.tasks.classification import Classification as Classification
    from graphseq.tasks.environments import MultiEnvironment as MultiEnvironment
    from graphseq.tasks.node_classification import NodeClassification as NodeClassification
    from graphseq.tasks.regression import Regression as Regression
    from graphseq.tasks.reweight import Reweighted as Reweighted
    from graphseq.tasks.samples import SampleTask as SampleTask
    from graphseq.tasks.stream import StreamTask as StreamTask
    from graphseq.tasks.temporal import TemporalLinkPrediction as TemporalLinkPrediction
    from graphseq.tasks.temporal_nodes import TemporalNodeClassification as TemporalNodeClassification
    from graphseq.tasks.temporal_nodes import static_node_embeddings as static_node_embeddings

_FILES: dict[str, str] = {
    "Classification": "classification",
    "MultiEnvironment": "environments",
    "NodeClassification": "node_classification",
    "Regression": "regression",
    "Reweighted": "reweight",
    "SampleTask": "samples",
    "Step": "base",
    "StreamTask": "stream",
    "Task": "base",
    "TemporalLinkPrediction": "temporal",
    "TemporalNodeClassification": "temporal_nodes",
    "load": "base",
    "static_node_embeddings": "temporal_nodes",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
