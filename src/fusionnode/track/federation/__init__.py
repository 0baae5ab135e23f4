"""Other nodes' tracks beside one's own: the picture that both can see."""
