"""Procedures on streams of events."""
