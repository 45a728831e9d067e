"""Networks on sampled signals and their spectra."""
