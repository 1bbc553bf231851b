"""`python -m training_jobs.compact`."""

import sys

from training_jobs.compact.job import main

sys.exit(main())
