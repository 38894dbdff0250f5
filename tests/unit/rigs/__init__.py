"""The rigs' own tests: what shows and judges must be right, or a demonstration proves nothing."""
