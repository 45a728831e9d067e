"""Text as tokens: stores and data modules."""
