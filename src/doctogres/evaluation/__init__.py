"""Measures a classifier on slides: metrics with intervals, calibration, figures and the HTML report.

Import the modules by name: `metrics` needs numpy alone, and matplotlib is loaded by `figures` only.
"""
