"""`python -m training_jobs.train`."""

import os
import sys

from training_jobs.train.job import main

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.exit(main())
