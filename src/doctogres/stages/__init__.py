"""The stages: each resolves what it is given, calls the library, and leaves one MLflow run."""
