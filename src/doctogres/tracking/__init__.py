"""Our MLflow conventions: runs, fingerprints, upstream results, datasets."""
