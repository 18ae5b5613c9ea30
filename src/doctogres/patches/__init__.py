"""From a mask to patches: boxes, crops, the manifest and its pixels."""
