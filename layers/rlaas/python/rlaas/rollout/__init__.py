"""Rollout: a candidate policy takes over by measured steps, or goes back."""
