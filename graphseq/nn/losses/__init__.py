"""Loss functions; import them from :mod:`graphseq.nn`."""
