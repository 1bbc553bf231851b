"""State machines, as Amazon States Language with JSONata."""
