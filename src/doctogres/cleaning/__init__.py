"""Cleaning: an outcome and a reason for every slide of a cohort, its group, and the split."""
