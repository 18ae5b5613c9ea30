"""From masks to patches: boxes, crops, the manifest and its pixels."""
