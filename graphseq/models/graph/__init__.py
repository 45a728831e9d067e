"""Networks on graphs and their nodes."""
