"""Which models are registered, and which version is served."""
