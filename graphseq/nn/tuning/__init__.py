"""Tuning of frozen pre-trained networks: by a network beside them, or by low-rank changes of their layers."""
