"""Parts of self-supervised training of graph encoders."""
