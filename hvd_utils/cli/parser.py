"""The parser of all command lines: help once a job, and what is wrong in one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import launched_rank


class Parser(argparse.ArgumentParser):
    """Shows help on rank 0 alone, and raises BadInput where argparse would end the process."""

    def print_help(self, file: Any = None) -> None:
        """Print the help, once for all ranks."""
        if launched_rank() == 0:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Raise BadInput; see ``argparse``."""
        raise BadInput(f"{message} (--help lists all options)")
