"""The decision rule: from probabilities to a mask, its search and its calibration.

Imports numpy alone; `calibration.conformal` imports scipy when it runs.
"""
