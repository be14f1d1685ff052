"""The order of the checks; each queries the ranks and adds its verdicts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import name_hosts
from hvd_utils.config.settings import DIGITS, Settings
from hvd_utils.preflight.checks import data as images
from hvd_utils.preflight.checks import decode, gpu, node, software
from hvd_utils.preflight.checks.allreduce import NetworkCheck
from hvd_utils.preflight.checks.horovod_build import judge as judge_build
from hvd_utils.preflight.checks.network_verdicts import Timed, judge_clocks
from hvd_utils.preflight.checks.throughput_verdicts import (
    estimate,
    judge_loading,
    judge_training,
    reduce_seconds,
)
from hvd_utils.preflight.coordinator import Answers, Coordinator
from hvd_utils.preflight.this_rank import leaders
from hvd_utils.preflight.verdict import FAIL, OK, SKIP, WARN, Verdict
from hvd_utils.trackers.sender import check_trackers


class Preflight:
    """The checks of one launch, on rank 0: verdicts so far, and figures for programs."""

    def __init__(self, lead: Coordinator) -> None:
        self.lead = lead
        self.options, self.settings = lead.here.options, lead.here.settings
        self.quick = self.options.quick
        self.verdicts: list[Verdict] = []
        self.figures: dict[str, Any] = {}
        self._sums: list[Timed] = []
        self._images: int | None = None
        self._classes = 1000
        self._way = "cpu"  # of decoding, that the job will take

    def run(self) -> None:
        """Make all requested checks, one after the other."""
        limit = self.options.time_limit
        self.lead.meet(min(30, limit / 4))
        self._without_torch()
        for name, check in self._later().items():
            if name not in self.options.checks:
                continue
            if self.lead.time_left < 1:
                self._add(Verdict(name, WARN, "no time was left for it", "raise --time-limit"))
                continue
            if name in ("compute", "input") and self._gpus_in_use():  # by what is ending, perhaps
                self._add(Verdict(name, SKIP, "the GPUs' memory is in use"))
                continue
            check()

    def _gpus_in_use(self) -> bool:
        return any(one.check == "GPU memory" and one.verdict == FAIL for one in self.verdicts)

    def _later(self) -> dict[str, Callable[[], None]]:
        return {
            "output": self._output,
            "horovod": self._horovod,
            "data": self._data,
            "decode": self._decode,
            "clock": self._clock,
            "allreduce": self._allreduce,
            "weights": self._weights,
            "trackers": self._trackers,
            "compute": self._compute,
            "input": self._input,
            "estimate": self._estimate,
        }

    def _add(self, *verdicts: Verdict) -> None:
        self.verdicts += verdicts

    def _limit(self, seconds: float, quick: float) -> float:
        """For measuring; what a rank may take at most is long, since a cold file system is slow."""
        return quick if self.quick else seconds

    @property
    def _leaders(self) -> list[int]:
        return leaders({rank: self.lead.hosts[rank] for rank in self.lead.alive})

    def _nodes(self) -> list[list[int]]:
        """The ranks of each node."""
        hosts = self.lead.hosts
        alive = self.lead.alive
        return [[r for r in alive if hosts[r] == hosts[leader]] for leader in self._leaders]

    def _without_torch(self) -> None:
        checks = {"software", "node", "gpu"} & set(self.options.checks)
        if not checks:
            return
        limit = max(20, self.options.time_limit / 5)
        answers = self.lead.ask("local", limit, "software, node and GPU facts")
        self._add(*answers.trouble("facts", self.lead.hosts))

        def facts(name: str) -> dict[int, Any]:
            return {rank: fact[name] for rank, fact in answers.facts.items() if name in fact}

        hosts = self.lead.hosts
        if facts("software"):
            self._add(*software.judge(facts("software"), hosts, software.git_revision()))
        if facts("node"):
            self._add(*node.judge(facts("node"), hosts))
        if "gpu" in checks:
            local = {}
            for ranks in self._nodes():
                local |= {rank: (number, len(ranks)) for number, rank in enumerate(ranks)}
            self._add(*gpu.judge(facts("gpu"), hosts, local, self.settings.device))

    def _output(self) -> None:
        folder = self.settings.output
        if folder is None:
            self._add(Verdict("output", SKIP, "no --output"))
            return
        token = folder.absolute() / f".preflight-{os.getpid()}-{time.time_ns()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            token.write_text("seen\n")
        except OSError as error:
            seen = f"rank 0 cannot write to {folder}: {error.strerror}"
            self._add(Verdict("output", FAIL, seen, "set --output to a folder that can be written"))
            return
        answers = self.lead.ask("sees", 10, "the output folder", self._leaders,
                                path=str(token))  # fmt: skip
        with contextlib.suppress(OSError):
            token.unlink()
        self._add(*answers.trouble("output", self.lead.hosts))
        if answers.facts:
            self._add(judge_output(answers.facts, self.lead.hosts, folder))

    def _child(
        self, check: str, task: str, limit: float, ranks: list[int] | None = None, **arguments: Any
    ) -> Answers:
        answers = self.lead.ask("child", limit, check, ranks, job=task, **arguments)
        self._add(*answers.trouble(check, self.lead.hosts))
        return answers

    def _horovod(self) -> None:
        limit = max(60, self.options.time_limit / 3)
        answers = self._child("imports", "imports", limit)
        if answers.facts:
            self._add(judge_build(answers.facts, self.lead.hosts, self.settings.device))

    def _data(self) -> None:
        answers = self._child("data", "data", 60, self._leaders,
                              decode=self._limit(64, 32))  # fmt: skip
        if answers.facts:
            self._add(*images.judge(answers.facts, self.lead.hosts, self.settings.on_bad_image))
            fact = next(iter(answers.facts.values()))["train"]
            self._images, self._classes = fact["images"], fact["classes"]
            self.figures["data"] = {key: fact[key] for key in ("images", "classes", "bytes", "how")}

    def _decode(self) -> None:
        if decode.is_skipped(self.settings):
            self._add(decode.SKIPPED)
            return
        answers = self.lead.ask("child", self._limit(90, 20), "decode", self._leaders,
                                job="decode", afresh=not self.quick)  # fmt: skip
        trouble = answers.trouble("decode", self.lead.hosts)
        if answers.timeouts and answers.timeouts == set(answers.errors):
            # Other nodes may know it from before. The job probes by itself, in more time.
            trouble = [replace(one, verdict=WARN, remedy="raise --time-limit") for one in trouble]
        self._add(*trouble)
        if answers.facts and not answers.timeouts:
            hosts, wanted = self.lead.hosts, self.settings.decode
            verdict, self._way = decode.judge(answers.facts, hosts, wanted)
            self._add(verdict)

    def _clock(self) -> None:
        offsets = {}
        for rank in self._leaders:
            if rank == self.lead.here.rank:
                continue
            trips = []
            for _ in range(4):
                began = time.time()
                told = self.lead.ask("now", 2, "clocks", [rank]).facts.get(rank)
                ended = time.time()
                if told is None:
                    break
                trips.append(((ended - began) / 2, told - (began + ended) / 2))
            if trips:
                error, ahead = min(trips)
                offsets[rank] = (ahead, error)
        self._add(judge_clocks(offsets, self.lead.hosts))
        self.figures["clock_seconds_ahead"] = {rank: ahead for rank, (ahead, _) in offsets.items()}

    def _allreduce(self) -> None:
        network = NetworkCheck(self.lead, self.options, self._nodes, self._add)
        self._sums = network.run()
        if self._sums:
            self.figures["allreduce"] = [one.facts() for one in self._sums]
        if network.by_nccl:
            self._sums = [network.by_nccl]  # as gradients travel
            self.figures["nccl"] = network.by_nccl.facts()

    def _compute(self) -> None:
        if self.options.gpu_rate:
            self._add(Verdict("training alone", SKIP, f"--gpu-rate {self.options.gpu_rate:g}"))
            return
        answers = self._child("training alone", "compute", 30,
                              classes=self._classes, seconds=self._limit(3, 1))  # fmt: skip
        if answers.facts:
            hosts = self.lead.hosts
            self._add(judge_training(answers.facts, hosts, self.settings.model))
            self.figures["training"] = {rank: fact["rate"] for rank, fact in answers.facts.items()}
            self.figures["parameters"] = next(iter(answers.facts.values()))["parameters"]

    def _weights(self) -> None:
        if self.settings.init is None:
            return
        answers = self._child("weights", "weights", 60, [self.lead.here.rank],
                              classes=self._classes)  # fmt: skip
        self._add(*(Verdict("weights", OK, seen) for seen in answers.facts.values()))

    def _trackers(self) -> None:
        if self.settings.track:
            self._add(judge_trackers(self.settings))

    def _input(self) -> None:
        if self.settings.loader == "synthetic" or self.settings.data is None:
            self._add(Verdict("input alone", SKIP, "no images to load"))
            return
        opened = self.lead.ask("child", 30, "opening the images", job="look")
        begin = opened.trouble("input alone", self.lead.hosts)
        if begin:
            self._add(*begin)
            return
        answers = self._child("input alone", "load", 30, list(opened.facts),
                              seconds=self._limit(3, 1), decode=self._way)  # fmt: skip
        if answers.facts:
            rate = self.options.gpu_rate
            eaten = {rank: rate or self.figures.get("training", {}).get(rank, 0.0)
                     for rank in answers.facts}  # fmt: skip
            # The demo's network is so small that a GPU waits for any input, which costs seconds.
            worst = WARN if self.settings.data == DIGITS else FAIL
            self._add(judge_loading(answers.facts, self.lead.hosts, eaten, worst))
            self.figures["loading"] = {rank: fact["rate"] for rank, fact in answers.facts.items()}

    def _estimate(self) -> None:
        ranks = self.lead.here.size
        parameters = self.figures.get("parameters")
        gradients = 0.0 if ranks == 1 else None
        if parameters and self._sums:
            gradients = reduce_seconds(self._sums, 4 * parameters)
        training = self.figures.get("training", {}).values()
        loading = self.figures.get("loading", {}).values()
        verdict, figures = estimate(
            self.settings, ranks, self._images,
            self.options.gpu_rate or min(training, default=None),
            min(loading, default=None), gradients,
        )  # fmt: skip
        self._add(verdict)
        self.figures["estimate"] = figures


def judge_trackers(settings: Settings) -> Verdict:
    """Judge whether the trackers can be used here, on rank 0, which alone sends to them."""
    try:
        check_trackers(settings)
    except BadInput as error:
        return Verdict("trackers", FAIL, str(error), "or leave it out of --track")
    return Verdict("trackers", OK, f"{', '.join(settings.track)} can be used")


def judge_output(facts: dict[int, bool], hosts: dict[int, str], folder: Path) -> Verdict:
    """Judge which nodes see the file that rank 0 wrote."""
    blind = [rank for rank, seen in facts.items() if not seen]
    if blind:
        seen = f"what rank 0 writes to {folder} is not seen on {name_hosts(blind, hosts)}"
        remedy = "set --output to a folder on a shared file system"
        return Verdict("output", FAIL, seen, remedy, machine=len(blind) < len(facts) - 1)
    nodes = f", shared by {len(facts)} nodes" if len(facts) > 1 else ""
    return Verdict("output", OK, f"{folder} is writable{nodes}")
