"""Files: gauge fields, ensembles, checkpoints and metrics."""
