"""Reports, figures and the model card."""
