"""Draw a run's curves: ``python -m hvd_utils.curves RUN [--out FILE.png]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hvd_utils import failure
from hvd_utils.events import read_events
from hvd_utils.failure import BadInput

NEEDED = {
    "step": ("step", "loss", "train_top1_error", "lr"),
    "epoch": ("step", "epoch", "val_top1_error"),
}


def draw(run: Path, out: Path) -> None:
    """Write a picture of loss, validation error and learning rate over epochs to ``out``.

    Raises BadInput if the run has logged no step or the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    events = list(read_events(run, NEEDED))
    steps = [event for event in events if event["event"] == "step"]
    epochs = [event for event in events if event["event"] == "epoch"]
    if not steps:
        raise BadInput(f"{run} has logged no step yet")
    # Where no epoch has ended, the axis is steps: its length in epochs is not known.
    per_epoch = epochs[-1]["step"] / (epochs[-1]["epoch"] + 1) if epochs else 1
    at = [event["step"] / per_epoch for event in steps]

    figure, (loss, error, rate) = pyplot.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    loss.plot(at, [event["loss"] for event in steps], label="training")
    loss.set(title="loss", ylim=(0, None))
    ends = [event["epoch"] + 1 for event in epochs]
    error.plot(at, [event["train_top1_error"] for event in steps], label="training", alpha=0.6)
    error.plot(ends, [event["val_top1_error"] for event in epochs], "o-", ms=3, label="validation")
    error.set(title="top-1 error, %", ylim=(0, 100))
    error.legend()
    rate.plot(at, [event["lr"] for event in steps], color="tab:green")
    rate.set(title="learning rate", yscale="log")
    for axes in (loss, error, rate):
        axes.set_xlabel("epochs" if epochs else "steps")
        axes.grid(alpha=0.3)
    try:
        figure.savefig(out, dpi=120)
    except OSError as error_:
        raise BadInput(f"cannot write {out}: {error_.strerror}") from error_


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(prog="python -m hvd_utils.curves", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, help="picture to write (default: RUN/curves.png)")
    arguments = parser.parse_args(sys.argv[1:])
    out = arguments.out or arguments.run / "curves.png"
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise BadInput(f"--out {out} is no picture: give a name that ends in .png, .svg or .pdf")
    draw(arguments.run, out)
    print(out)


if __name__ == "__main__":
    failure.run(main)
