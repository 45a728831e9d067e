"""Tasks over sequences: classes of sequences and of steps, language models."""
