"""Harness of named, seeded experiments: a method against its named baseline (effects) and against peers (speed)."""

from graphseq.bench.claims import Above, Quantity, Results, Rule, Seeds, all_of, any_of
from graphseq.bench.discovery import experiments, load_experiment
from graphseq.bench.effect import Effect

__all__ = [
    "Above",
    "Effect",
    "Quantity",
    "Results",
    "Rule",
    "Seeds",
    "all_of",
    "any_of",
    "experiments",
    "load_experiment",
    "new",
]


def new(class_path: str, **init_args: object) -> dict[str, object]:
    """Return a class with its arguments as a config writes it.

    Args:
        class_path: public path of the class.
        init_args: its arguments.

    Example:
        >>> new("graphseq.nn.PRESCorrector", gamma_init=0.7)
        {'class_path': 'graphseq.nn.PRESCorrector', 'init_args': {'gamma_init': 0.7}}
    """
    return {"class_path": class_path, "init_args": init_args}
