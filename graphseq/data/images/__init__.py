"""Readers and data modules of images."""
