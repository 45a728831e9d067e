"""Procedures that train networks to forecast time series."""
