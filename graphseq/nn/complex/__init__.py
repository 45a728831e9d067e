"""Layers on complex numbers that torch does not have: normalisation, dropout, activations, initialisation."""
