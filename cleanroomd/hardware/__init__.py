"""What is attached to the enclosure."""
