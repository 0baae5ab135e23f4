"""Sensor truth: what is known of the sensors' biases and noise, and whether a sensor makes sense."""
