"""Heavy entrypoints that run as SageMaker jobs in `containers/learning`."""
