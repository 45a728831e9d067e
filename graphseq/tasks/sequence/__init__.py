"""Tasks on sequences: classification, tagging, and language modelling."""
