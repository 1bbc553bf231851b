"""`python -m training_jobs.evaluate`."""

import sys

from training_jobs.evaluate.job import main

sys.exit(main())
