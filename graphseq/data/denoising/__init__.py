"""Tokens with spans taken out, for the training of language models that fill them in."""
