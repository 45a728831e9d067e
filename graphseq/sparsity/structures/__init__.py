"""Random graphs and the layered directed acyclic graphs that networks are built from."""
