"""Students for other programs."""
