"""How doctogres uses MLflow: runs, fingerprints, upstream results, datasets."""
