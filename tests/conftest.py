"""What every test shares: property tests have no deadline (machines differ) and draw the same examples in every run."""

from hypothesis import settings

settings.register_profile("rlaas", deadline=None, derandomize=True)
settings.load_profile("rlaas")
