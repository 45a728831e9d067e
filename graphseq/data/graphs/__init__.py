"""Stores, data modules and generators of graphs."""
