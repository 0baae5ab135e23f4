"""``fusionnode demo``: emulated sensors, a node and a subscriber, watched live and scored against truth."""
