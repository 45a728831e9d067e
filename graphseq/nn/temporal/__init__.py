"""Layers for streams of events; import from :mod:`graphseq.nn`."""
