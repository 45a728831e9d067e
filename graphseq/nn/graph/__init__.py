"""Layers on graphs; import them from :mod:`graphseq.nn`."""
