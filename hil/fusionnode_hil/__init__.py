"""Software stand-ins for the sensors, and the bench that drives them."""
