"""Evals: definitions, the runs that put a model through them, and the report that compares models."""
