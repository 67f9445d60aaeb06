"""Measurement: metrics, the decision rule and its tuning, intervals, the report."""
