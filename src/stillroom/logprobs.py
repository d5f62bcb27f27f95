"""The tokens a teacher weighed at each place of its answer, packed."""
