"""The budgets of the design, measured: `make bench`. Figures go to benchmarks/results/<name>.json."""
