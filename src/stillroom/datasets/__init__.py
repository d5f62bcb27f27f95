"""Files of examples: uploaded, checked, or made from stored completions."""
