"""What a sweep does when files, disks, processes and machines fail."""

import os

IS_LONG = os.environ.get("SPECSWEEP_FAULTS") == "long"
"""Whether to try everything, not some of it: ``make faults``."""
