"""What the tracker was, kept: for late measurements, and for the next run."""
