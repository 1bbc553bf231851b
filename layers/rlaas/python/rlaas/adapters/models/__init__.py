"""Models: whatever answers a chat or judges a text, each behind `Backend` or `Moderator`."""
