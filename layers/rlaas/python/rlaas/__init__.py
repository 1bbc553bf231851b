"""RLaaS: a continuous-learning service for LLM applications, one room per step of the loop."""

import gc

# Imported modules stay in memory. By default the garbage collector would walk through them again and again during
# further imports, which takes a fifth of a function's start.
gc.freeze()
gc.set_threshold(100_000, 10, 10)
