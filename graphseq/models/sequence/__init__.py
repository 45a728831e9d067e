"""Networks over sequences."""
