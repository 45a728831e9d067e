"""Time series as windows: stores, splits by time, scaling, and data modules."""
