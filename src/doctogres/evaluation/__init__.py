"""Evaluates a classifier on slides: metrics with intervals, calibration, null models, and comparisons."""
