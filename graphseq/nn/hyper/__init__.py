"""Hypernetworks: networks whose weights are the output of another network."""
