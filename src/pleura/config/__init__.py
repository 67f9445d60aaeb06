"""Recipes, ensembles and model cards as files: read, overridden, checked, and explained where they are wrong."""
