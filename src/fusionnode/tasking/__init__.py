"""Observations asked for: by partners, or by the node itself; decided, aimed, sent, acknowledged. Pure."""
