"""A run's events become a versioned dataset."""
