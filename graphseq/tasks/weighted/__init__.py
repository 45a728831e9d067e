"""Procedures that weight samples or penalise differences of environments."""
