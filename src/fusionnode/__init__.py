"""fusionnode: a space-surveillance sensor-fusion node."""

__version__ = "0.1.0"
