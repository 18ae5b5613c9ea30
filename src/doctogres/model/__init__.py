"""The model: everything between a slide and its prediction."""
