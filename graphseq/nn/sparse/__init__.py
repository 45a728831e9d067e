"""Layers of which only some weights exist."""
