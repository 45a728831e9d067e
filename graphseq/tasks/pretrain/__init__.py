"""Procedures that train a graph encoder without labels."""
