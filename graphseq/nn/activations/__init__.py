"""Activations: self-normalising, polynomial, and rectified ones with a correction or a threshold."""
