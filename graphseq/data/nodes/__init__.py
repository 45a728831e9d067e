"""Data modules of one graph whose nodes are the samples."""
