"""Training: patch datasets, splits, augmentation, losses, the loop, and scores. Needs the extra `training`."""
