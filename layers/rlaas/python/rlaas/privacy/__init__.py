"""Privacy: personal data found in text and taken out of it before anything is stored."""
