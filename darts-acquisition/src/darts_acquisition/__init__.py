"""Where the data of darts comes from: optical scenes, elevation, Landsat trends."""
