"""Generated wideband signals of several emitters, and the bins that they occupy."""
