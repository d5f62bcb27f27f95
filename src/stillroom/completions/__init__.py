"""Stored completions: what was asked, what was answered, and the metadata to find it by."""
