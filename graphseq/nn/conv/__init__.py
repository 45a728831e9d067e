"""Convolutional layers and encoders of images."""
