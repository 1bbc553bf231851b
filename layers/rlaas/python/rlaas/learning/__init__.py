"""Learning: runs from events to an adapter. The work itself is SageMaker's, in `training_jobs`."""
