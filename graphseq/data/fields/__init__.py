"""Fields on a grid: random ones, solutions of differential equations, and data modules of both."""
