"""How satellites move."""
