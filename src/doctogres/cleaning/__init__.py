"""Cleaning: an outcome and a reason for every slide of a cohort, split groups, and the split itself."""
