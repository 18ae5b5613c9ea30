"""Training of the patch classifier: unfreezing schedule, optimizer, augmentation and loop."""
