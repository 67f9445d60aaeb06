"""Phantom radiographs for the demo, `pleura pack`, the benchmarks and the tests."""
