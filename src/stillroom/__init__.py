"""stillroom: an open, self-hosted distillation platform for language models."""

__version__ = "0.1.0"
