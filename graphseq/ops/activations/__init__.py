"""Values and moments of activations."""
