"""Who works on the tiles: this process, several, or a cluster."""
