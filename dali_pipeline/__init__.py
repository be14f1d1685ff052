"""The input pipeline: dataset, sampling, loading; preparation, staging and benchmarking.

Of ``hvd_utils`` it imports the ground floor alone: cli, config, paper and faults.
"""

from hvd_utils.cli.environment_check import require_packages

require_packages()
