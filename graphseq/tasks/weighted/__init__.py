"""Training procedures that weight samples or penalise differences between environments."""
