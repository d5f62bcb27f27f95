"""The hot path: one chat completion from the caller's request to the answer, metered and stored."""
