"""Features of thawing permafrost on one grid: indices, terrain, trends."""
