"""Build a versioned dataset from a run's events."""
