"""Generated tasks on sequences that ask for a memory."""
