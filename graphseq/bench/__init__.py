"""Named, seeded experiments: a method against its named baseline (effects) and against peers (speed)."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphseq.bench.experiment import Experiment

__all__ = ["experiments", "load_experiment"]

_EXPERIMENTS = {
    "effect.gin_tu": "graphseq.bench.gin_tu:GINOnTU",
    "effect.l2r_motif": "graphseq.bench.l2r_motif:L2ROnMotifs",
    "effect.l2r_scaffold": "graphseq.bench.l2r_graphs:L2RByScaffold",
    "effect.l2r_selection_bias": "graphseq.bench.l2r_selection_bias:SelectionBias",
    "effect.l2r_size": "graphseq.bench.l2r_graphs:L2RBySize",
    "effect.pres": "graphseq.bench.pres:PRESAtLargeBatch",
    "effect.tgn_wikipedia": "graphseq.bench.tgn_wikipedia:TGNOnWikipedia",
    "speed.graph_epoch": "graphseq.bench.graph_epoch:GraphEpochSpeed",
    "speed.graph_loader": "graphseq.bench.graph_loader:GraphLoaderSpeed",
    "speed.image_loader": "graphseq.bench.image_loader:ImageLoaderSpeed",
    "speed.l2r_step": "graphseq.bench.l2r_speed:L2RStepSpeed",
    "speed.segment": "graphseq.bench.segment:SegmentSpeed",
    "speed.temporal_scale": "graphseq.bench.temporal_scale:TemporalScaleSpeed",
    "speed.temporal_train": "graphseq.bench.temporal_train:TemporalTrainingSpeed",
}


def experiments() -> dict[str, str]:
    """Return the names of all experiments and where each is defined, ``module:Class``; nothing is imported.

    Example:
        >>> experiments()["speed.segment"]
        'graphseq.bench.segment:SegmentSpeed'
    """
    return dict(_EXPERIMENTS)


def load_experiment(name: str) -> "Experiment":
    """Import and build one experiment.

    Args:
        name: a key of :func:`experiments`.

    Raises:
        ValueError: if there is no experiment of that name.

    Example:
        >>> load_experiment("speed.nothing")
        Traceback (most recent call last):
        ValueError: there is no experiment 'speed.nothing'; `graphseq bench --list` names them
    """
    if name not in _EXPERIMENTS:
        raise ValueError(f"there is no experiment {name!r}; `graphseq bench --list` names them")
    module, _, cls = _EXPERIMENTS[name].partition(":")
    return getattr(importlib.import_module(module), cls)()
