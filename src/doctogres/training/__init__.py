"""Training of the patch classifier: the schedule of unfreezing, the optimizer, the augmentation and the loop."""
