"""From label files and scenes to patch datasets, with the loaders and the preprocessing of a run."""
