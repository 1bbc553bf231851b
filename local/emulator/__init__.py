"""What the laptop cloud adds to ministack: run as `python -m local.emulator` in the emulator's own environment.

Each module knows one service, says what stock ministack does and why that is wrong or missing, and has an `install()`
that hooks it in. `tests/local_cloud/test_emulator_stock.py` asserts the stock behaviour, and so notices the day an
addition is no longer needed.
"""
