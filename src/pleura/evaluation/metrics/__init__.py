"""Metrics, intervals and subgroups: functions of numbers, none of files."""
