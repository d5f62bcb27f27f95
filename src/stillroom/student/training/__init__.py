"""A training run: how steps are computed, and in which order."""
