"""Pruning while a network trains, and what it does to the neurons."""
