"""The CDK app's parts; nothing here runs in a function."""
