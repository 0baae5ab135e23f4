"""From measurements of nothing known to tracks."""
