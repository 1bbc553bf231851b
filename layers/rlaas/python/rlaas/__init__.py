"""RLaaS: a continuous-learning service for LLM applications, one room per step of the loop."""

import gc

gc.set_threshold(20_000, 10, 10)  # by its default of 700 the collector walks all that is imported again and again while there is no garbage
