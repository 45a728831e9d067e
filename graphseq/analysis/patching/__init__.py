"""Effects of a trained network's activations on its output: by patching, by gradients, and by relevance."""
