"""Programs that run as SageMaker jobs in the image of `containers/learning`."""
