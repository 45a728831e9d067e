"""Layers with sparse weights."""
