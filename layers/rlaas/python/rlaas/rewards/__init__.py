"""Rewards: events become numbers in [0, 1] with their components."""
