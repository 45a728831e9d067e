"""Classification and regression of graphs, nodes, images and rows."""
