"""Training: what a run is asked to do and what it reports. The work itself is a SageMaker job, `training_jobs/train.py`."""
