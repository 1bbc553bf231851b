"""Adapters of the rooms' Protocols on AWS: the only place that imports boto3."""
