"""RLaaS: a continuous-learning service for LLM applications, one room per step of the loop."""

import gc

# What is imported stays. By its defaults the collector walks it again and again while more is imported, a fifth of a
# function's start.
gc.freeze()
gc.set_threshold(50_000, 10, 10)
