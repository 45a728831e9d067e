"""Fully connected layers and networks."""
