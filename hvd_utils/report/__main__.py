"""Report on runs: ``python -m hvd_utils.report RUN [RUN ...]``, as a page, pictures or text.

Reads their folders only, so it may be called from anywhere, while they run and afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the requested page, pictures and text."""
    parser = Parser(prog="python -m hvd_utils.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write (default: report.html, in the run's folder where there is one run)",
    )
    parser.add_argument("--png", type=Path, metavar="DIR", help="also write the pictures there")
    parser.add_argument(
        "--terminal", action="store_true", help="show text; then a page only with --out"
    )
    options = parser.parse_args(arguments)

    from hvd_utils.report.series import read_runs

    runs = read_runs(options.runs, time.time())
    if options.terminal:
        from hvd_utils.report.terminal import show

        print(show(runs))
        if not (options.out or options.png):
            return
    from hvd_utils.report.page import write_page
    from hvd_utils.report.panel import write_png
    from hvd_utils.report.pictures import draw

    panels = draw(runs)
    if options.out or not options.terminal:
        out = options.out or (options.runs[0] if len(runs) == 1 else Path()) / "report.html"
        _write(out, write_page(runs, panels))
        print(out)
    if options.png:
        for panel in panels:
            print(write_png(panel, options.png))


def _write(path: Path, page: str) -> None:
    """Write the page whole, so that who has it open while it is written anew sees no half."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; set --out elsewhere") from error


if __name__ == "__main__":
    run_main(main)
