"""`python -m training_jobs.build_dataset`."""

import sys

from training_jobs.build_dataset.job import main

sys.exit(main())
