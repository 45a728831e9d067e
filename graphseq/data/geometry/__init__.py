"""Sets of points with exact solutions of geometric problems: convex hulls, triangulations, tours."""
