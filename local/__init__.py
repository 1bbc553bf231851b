"""The laptop cloud, the demo, and what sets them up; nothing here is deployed."""
