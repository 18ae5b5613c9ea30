"""The one way from a slide to an answer."""
