"""RLaaS: a continuous-learning service for LLM applications, one room per step of the loop."""
