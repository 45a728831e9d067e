"""Files of :mod:`graphseq.nn`; import from the room."""
