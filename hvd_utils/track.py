"""The command ``python -m hvd_utils.track``."""

from hvd_utils.cli.run_main import run_main
from hvd_utils.inspect.track import main

if __name__ == "__main__":
    run_main(main)
