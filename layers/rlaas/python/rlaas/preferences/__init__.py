"""Preferences: edits and discards become pairs, deduplicated, split by thread, versioned with a manifest."""
