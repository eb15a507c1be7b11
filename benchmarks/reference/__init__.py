"""What a user would write with the obvious library calls, for the benchmarks to measure against."""
