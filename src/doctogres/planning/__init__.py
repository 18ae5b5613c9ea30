"""What `preset=auto` chooses for a cohort and a machine, and how long the pipeline will take on it."""
