"""What happens to objects."""
