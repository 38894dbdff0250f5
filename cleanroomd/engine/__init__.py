"""The one loop, and the effects that its steps call."""
