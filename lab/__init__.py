"""The laboratory: benchmarks against other methods, research scripts and the records of measurements."""
