"""What becomes a version of the registered model, and which one is served."""
