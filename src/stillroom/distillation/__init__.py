"""Distillation as code: teacher, synthetic labels, student, saved model."""
