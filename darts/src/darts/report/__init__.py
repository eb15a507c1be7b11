"""The report of a run: one page with a map, charts and pictures."""
