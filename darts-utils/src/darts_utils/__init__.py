"""The shared vocabulary of darts: bands, grids, arrays, stores, paths, errors."""
