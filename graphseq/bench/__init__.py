"""Harness of named, seeded experiments: a method against its named baseline (effects) and against peers (speed)."""

from graphseq.bench.discovery import experiments, load_experiment

__all__ = ["experiments", "load_experiment"]
