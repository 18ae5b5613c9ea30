"""The served model: a slide's picture and mask in, its subtype and what led to it out."""
