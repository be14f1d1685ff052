"""Send a run's log to a tracker: each step once, however often the run was broken off.

``RUN/trackers/NAME.json`` keeps which run it is there and how far its log was sent. So the next
launch, or this command by hand, goes on in the same run behind what it has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import replace_text
from hvd_utils.cli.parser import Parser
from hvd_utils.run.event_log import METRICS, EventReader
from hvd_utils.timing.stopwatch import PARTS
from hvd_utils.trackers.follower import FOLDER, LIMIT
from hvd_utils.trackers.sender import TRACKERS, Sender, check_tracker, make_sender

LOOK_EVERY = 2.0  # seconds between two looks at the log of a run that goes on
TRAINING = ("loss", "lr", "train_top1_error", "images_per_second")
VALIDATION = ("val_top1_error", "val_top5_error")


def metrics_of(event: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers show of an event, by the names of TensorBoard's scalars; {} if nothing.

    A window that a launch ended in is not shown: the next launch logs it whole.
    """
    if event["event"] == "epoch":
        return {f"val/{name.removeprefix('val_')}": event[name] for name in VALIDATION}
    if event["event"] != "step" or event.get("partial"):
        return {}
    shown = {f"train/{n.removeprefix('train_')}": event[n] for n in TRAINING if n in event}
    for part in PARTS:
        _, median, most = event.get(f"{part}_seconds", (None, None, None))
        if median is not None:
            shown |= {f"time/{part}_median": median, f"time/{part}_max": most}
    return shown


def place_of(event: Mapping[str, Any]) -> int:
    """Return the place of a step or an epoch in a whole log: an epoch is behind its last step."""
    return 2 * event["step"] + (event["event"] == "epoch")


class Ledger:
    """``NAME.json`` of a run: its ``id`` at the tracker, and up to which ``place`` it was sent."""

    def __init__(self, run: Path, name: str) -> None:
        self._path = run / FOLDER / f"{name}.json"
        try:
            kept = json.loads(self._path.read_text()) if self._path.exists() else {}
            self.id, self.place = kept.get("id"), int(kept.get("place", -1))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise BadInput(f"cannot read {self._path}: {error}: mend or remove it") from error

    def keep(self, run_id: str, place: int) -> None:
        """Note what was sent."""
        self.id, self.place = run_id, place
        replace_text(self._path, json.dumps({"id": run_id, "place": place}) + "\n")


def send_new(events: EventReader, ledger: Ledger, sender: Sender) -> None:
    """Send what is new in the log and not sent yet."""
    for event in events.new():
        metrics = metrics_of(event)
        if metrics and place_of(event) > ledger.place:
            sender.send(place_of(event), event["step"], event["time"], metrics)
            ledger.keep(sender.id, place_of(event))


def track(run: Path, name: str, until_closed: TextIO | None) -> str | None:
    """Send a run's log, also what is added to it until ``until_closed`` is; return a last line."""
    (run / FOLDER).mkdir(exist_ok=True)
    with _alone(run / FOLDER / f"{name}.lock"):
        ledger, events = Ledger(run, name), EventReader(run)
        sender = make_sender(name, run, ledger.id, _settings(run))
        ledger.keep(sender.id, ledger.place)
        while until_closed and not select.select([until_closed], [], [], LOOK_EVERY)[0]:
            send_new(events, ledger, sender)
        send_new(events, ledger, sender)
        return sender.close(ended=events.last == "end")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process sends this run's log, as that of the launch before."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load((run / "settings.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _say(line: str) -> None:
    """Have the launch show a line, if it is still there."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _leave_in_time() -> None:
    """End this process some time after its launch, also where the tracker waits for ever."""
    select.select([sys.stdin], [], [])
    time.sleep(2 * LIMIT)
    os._exit(1)


def main() -> None:
    """Read the command line and send."""
    parser = Parser(prog="python -m hvd_utils.track", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("tracker", choices=TRACKERS, metavar="NAME", help=" or ".join(TRACKERS))
    parser.add_argument("--follow", action="store_true", help="until standard input is closed")
    options = parser.parse_args()
    run, name = options.run.absolute(), options.tracker
    if not (run / METRICS).exists():
        raise BadInput(f"{options.run} is no run: there is no {METRICS}")
    check_tracker(name)
    if not options.follow:
        line = track(run, name, None)
        print(line or f"{name}: sent what {options.run} has")
        return
    os.nice(10)  # cores are for training
    threading.Thread(target=_leave_in_time, daemon=True).start()
    try:
        line = track(run, name, sys.stdin)
        if line:
            _say(line)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        _say(
            f"warning: --track {name}: {type(error).__name__}: {text}; training goes on, and "
            f"python -m hvd_utils.track {options.run} {name} sends what is missing"
        )
        os._exit(1)
