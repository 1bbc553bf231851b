"""The simulated support office: customers who write, and agents who edit, send or discard what RLaaS drafts for
them."""
