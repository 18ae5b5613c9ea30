"""The served model: slide image and mask in, subtype and patch probabilities out."""
