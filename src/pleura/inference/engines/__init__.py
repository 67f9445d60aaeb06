"""Engines run a net: images in, probabilities out."""
