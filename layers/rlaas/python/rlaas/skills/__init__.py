"""Skills: the tasks that policies compete to do well."""
