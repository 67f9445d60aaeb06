"""Phantom radiographs for the demo and the tests."""
