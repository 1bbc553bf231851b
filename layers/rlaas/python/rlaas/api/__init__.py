"""API: HTTP in and out: requests parsed, callers admitted, use cases called, errors mapped once."""
