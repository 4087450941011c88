"""What the lessons import, and nothing else."""

import logging

# matplotlib's notices (a home that cannot be written, fonts that it looks for) are not a lesson's.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
