"""What a measurement says of a state."""
