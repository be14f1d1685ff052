"""Training with Horovod: the docstring of each package describes it.

From the ground up: cli, config, paper, faults, nn, horovod_backend, timing, training, run, inspect,
report; preflight and scaling are used before a run. Imports go down only.
"""

from hvd_utils.cli.environment_check import require_packages

require_packages()
