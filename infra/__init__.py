"""The parts of the CDK app; no function imports them."""
