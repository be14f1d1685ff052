"""Rank 0 sends requests, the others serve them; a rank that misses its time limit is named."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hvd_utils.cli.ranks import name_ranks, some
from hvd_utils.preflight import tasks
from hvd_utils.preflight.messages import Mailbox
from hvd_utils.preflight.this_rank import ThisRank
from hvd_utils.preflight.verdict import FAIL, OK, WARN, Verdict, groups_of

GRACE = 1.0  # seconds that an answer may take beyond its task's limit
RESERVE = 2.0  # seconds of the time limit kept for the table


@dataclass
class Answers:
    """What ranks answered: facts, or an error and whether it was a matter of time."""

    facts: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    timeouts: set[int] = field(default_factory=set)

    def trouble(self, check: str, hosts: Mapping[int, str]) -> list[Verdict]:
        """Return a verdict for the ranks that could not do what was asked.

        Where no rank was in time, the time was short; where some were, the others' machines are at
        fault. What no rank can do is the job's.
        """
        if not self.errors:
            return []
        told = some(f"{name_ranks(ranks, hosts)}: {text}" for text, ranks in groups_of(self.errors))
        if not self.facts and self.timeouts == set(self.errors):
            return [Verdict(check, WARN, f"not known: {told}", "raise --time-limit")]
        remedy = "see that rank's host: the same must work there as on the others"
        if not self.facts:
            remedy = "mend this before the job is started: it would fail in the same way"
        return [Verdict(check, FAIL, told, remedy, machine=bool(self.facts))]


class Coordinator:
    """Rank 0's conversation with all ranks, itself included.

    ``hosts`` are the ranks that ever answered; ``silent`` are those that did not answer the last
    time they were asked, with what it was; ``late`` answered after their time.
    """

    def __init__(self, here: ThisRank, mail: Mailbox, until: float) -> None:
        self.here, self._mail, self._until = here, mail, until
        self.hosts: dict[int, str] = {here.rank: here.host}
        self.silent: dict[int, str] = {}
        self.late: dict[int, str] = {}
        self.asking = "the first sign of life"
        self.awaited: set[int] = set(range(here.size)) - {here.rank}
        self._answers: dict[int, dict[int, Any]] = {}
        self._number = 0

    @property
    def alive(self) -> list[int]:
        """The ranks that answer."""
        return [rank for rank in sorted(self.hosts) if rank not in self.silent]

    @property
    def time_left(self) -> float:
        """Seconds until the table has to be printed."""
        return self._until - RESERVE - time.monotonic()

    def meet(self, limit: float) -> None:
        """Collect the ranks that are there and their hosts; each sends a message."""
        self._gather(0, limit, "the first sign of life")
        for rank, host in self._answers.get(0, {}).items():
            self.hosts[rank] = host
        self.place()

    def place(self) -> Answers:
        """Tell all that answer who they are."""
        hosts = {rank: self.hosts[rank] for rank in self.alive}
        return self.ask("place", 5, "place", hosts=hosts)

    def ask(
        self,
        task: str,
        limit: float,
        what: str,
        ranks: Iterable[int] | None = None,
        **arguments: Any,
    ) -> Answers:
        """Have ``ranks`` (all that answer, unless given) do a task at once; return their answers.

        ``what`` are the words for it. The limit in seconds is cut to the time that is left.
        """
        asked = [
            rank for rank in (self.alive if ranks is None else ranks) if rank not in self.silent
        ]
        limit = max(0.5, min(limit, self.time_left))
        self._number += 1
        number = self._number
        message = {"number": number, "task": task, "limit": limit, "arguments": arguments}
        self.asking, self.awaited = what, set(asked)
        for rank in asked:
            if rank != self.here.rank:
                self._mail.send(rank, message)
        answers = self._answers.setdefault(number, {})
        began = time.monotonic()
        if self.here.rank in asked:
            answers[self.here.rank] = tasks.run(self.here, task, limit, arguments)
            self.awaited.discard(self.here.rank)
        self._gather(number, limit + GRACE - (time.monotonic() - began), what)
        return _sorted_out(answers)

    def dismiss(self, code: int) -> None:
        """Tell all that answer to leave with this exit code."""
        for rank in self.alive:
            if rank != self.here.rank:
                self._mail.send(rank, {"leave": code})
        self._mail.flush(time.monotonic() + 2)

    def verdicts(self) -> list[Verdict]:
        """Return the lines on the ranks themselves."""
        found = []
        if self.silent:
            remedy = "look at process and host (stopped, swapping, cut off), or leave it out"
            told = self._told(self.silent, "since")
            found.append(Verdict("ranks", FAIL, f"no answer from {told}", remedy, True))
        late = {rank: what for rank, what in self.late.items() if rank not in self.silent}
        if late:
            remedy = "look what else runs on the host; raise --time-limit on a busy one"
            told = self._told(late, "with")
            found.append(Verdict("ranks", WARN, f"answered too late: {told}", remedy))
        hosts = len(set(self.hosts.values()))
        seen = f"{len(self.alive)} of {self.here.size} answer, on {hosts} node{'s'[: hosts > 1]}"
        return found or [Verdict("ranks", OK, seen)]

    def _told(self, reasons: Mapping[int, str], word: str) -> str:
        return some(
            f"{name_ranks(ranks, self.hosts)} {word} {what}" for what, ranks in groups_of(reasons)
        )

    def missing(self) -> list[Verdict]:
        """Return the line for a table printed while some ranks are being waited for."""
        if not self.awaited:
            return []
        awaited = name_ranks(self.awaited, self.hosts)
        seen = f"broken off during {self.asking}; not yet heard of: {awaited}"
        remedy = "one of these may have died: look at their hosts"
        return [Verdict("ranks", FAIL, seen, remedy, machine=True)]

    def _gather(self, number: int, limit: float, what: str) -> None:
        awaited = self.awaited
        answers = self._answers.setdefault(number, {})

        def all_there() -> bool:
            while arrived := self._mail.take():
                self._note(*arrived)
            return awaited <= answers.keys()

        self._mail.wait(all_there, time.monotonic() + max(0.1, limit))
        for rank in sorted(awaited - answers.keys()):
            self.silent[rank] = what
        self.awaited = set()

    def _note(self, rank: int, message: Mapping[str, Any]) -> None:
        self._answers.setdefault(message["number"], {})[rank] = message["answer"]
        self.awaited.discard(rank)
        if rank in self.silent:
            self.late[rank] = self.silent.pop(rank)
            if message["number"] == 0:
                self.hosts[rank] = message["answer"]


def _sorted_out(answers: Mapping[int, Mapping[str, Any]]) -> Answers:
    found = Answers()
    for rank in sorted(answers):
        answer = answers[rank]
        if "facts" in answer:
            found.facts[rank] = answer["facts"]
        else:
            found.errors[rank] = answer["error"]
            if answer["timeout"]:
                found.timeouts.add(rank)
    return found


def serve(here: ThisRank, mail: Mailbox, until: float) -> int | None:
    """Serve rank 0's requests until it sends an exit code; return it, None if there is silence."""
    mail.send(0, {"number": 0, "answer": here.host})
    arrived: list[Any] = []

    def taken() -> bool:
        message = mail.take()
        if message:
            arrived.append(message[1])
        return bool(message)

    while mail.wait(taken, until):
        message = arrived.pop()
        if "leave" in message:
            return message["leave"]
        answer = tasks.run(here, message["task"], message["limit"], message["arguments"])
        mail.send(0, {"number": message["number"], "answer": answer})
    return None
