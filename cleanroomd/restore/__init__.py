"""What should be, and the steps that lead there: pure, synchronous, deterministic."""
