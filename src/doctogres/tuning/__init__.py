"""The search for better training settings."""
