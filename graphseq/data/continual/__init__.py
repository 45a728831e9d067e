"""Data modules of several tasks that are learned one after another."""
