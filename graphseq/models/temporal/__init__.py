"""Networks on streams of events."""
