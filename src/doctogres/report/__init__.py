"""What people look at: reports, figures, the model card."""
