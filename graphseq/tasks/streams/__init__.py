"""Training procedures on streams of events."""
