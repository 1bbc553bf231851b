"""Train two adapters on a dataset: SFT then DPO, and an SFT-only control."""
