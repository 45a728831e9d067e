"""Attention, convolutions and averages along a sequence."""
