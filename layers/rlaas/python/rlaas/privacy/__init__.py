"""Privacy: finds personal data in texts and takes it out before anything is stored."""
