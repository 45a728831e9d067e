"""Networks that forecast time series."""
