"""From probabilities to objects."""
