"""The stages: each resolves its inputs, calls the library, and records one MLflow run."""
