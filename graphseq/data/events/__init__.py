"""Temporal graphs: event tables, stores, loaders, negatives and data modules."""
