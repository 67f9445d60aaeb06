"""Scores that can be trusted: evaluate, score, compare, tune, recalibrate, and the report."""
