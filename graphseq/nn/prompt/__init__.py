"""Prompts for frozen graph encoders: policies that choose nodes and vectors, critics, and packed environments."""
