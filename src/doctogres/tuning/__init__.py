"""The search of the recipe."""
