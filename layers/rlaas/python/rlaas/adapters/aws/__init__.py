"""AWS: tables, queues, buckets, functions and SageMaker behind the rooms' Protocols. With `models`, the only place that
imports boto3."""
