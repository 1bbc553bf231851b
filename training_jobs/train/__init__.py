"""A dataset becomes two adapters: SFT then DPO, and an SFT-only control."""
