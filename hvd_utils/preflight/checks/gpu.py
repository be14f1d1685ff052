"""Has each local rank a GPU of its own, with free memory and unthrottled clocks?"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import name_ranks, some
from hvd_utils.horovod_backend.node import gpu_index
from hvd_utils.preflight.verdict import FAIL, OK, SKIP, WARN, Verdict, odd_ones

FIELDS = ("index", "uuid", "pci.bus_id", "name", "memory.total", "memory.used")
THROTTLE = ("clocks_throttle_reasons.active", "clocks_event_reasons.active")  # old and new name
# NVML's bits that cost speed; idling and application clocks do not count.
REASONS = {0x08: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)",
           0x80: "power brake"}  # fmt: skip
HANGS = "nvidia-smi hangs"
MUCH_USED, SOME_USED = 0.5, 0.05  # shares of a GPU's memory, before the job
NO_ANSWER = ("[n/a]", "n/a", "[not supported]", "[unknown error]", "")


def collect(limit: float) -> dict[str, Any]:
    """Return the GPUs that nvidia-smi lists, and what the scheduler shows of them to this rank."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    answer = ""
    for throttle in THROTTLE:
        query = f"--query-gpu={','.join((*FIELDS, throttle))}"
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except FileNotFoundError:
            return {"gpus": [], "visible": visible, "reason": "no nvidia-smi"}
        except subprocess.TimeoutExpired:
            return {"gpus": [], "visible": visible, "reason": f"{HANGS} ({limit:.0f} s)"}
        answer = (done.stdout + done.stderr).strip()
        if done.returncode == 0:
            gpus = parse(done.stdout)
            if "MIG-" in (visible or ""):
                gpus += _parts_of(gpus, limit)
            return {"gpus": gpus, "visible": visible, "reason": ""}
    return {"gpus": [], "visible": visible, "reason": answer.partition("\n")[0][:200]}


def parse(text: str) -> list[dict[str, Any]]:
    """Return the GPUs of nvidia-smi's CSV: memory in bytes and throttling as bits, None unknown."""
    gpus = []
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) != len(FIELDS) + 1:
            continue
        index, uuid, bus, name, total, used, throttle = (cell.strip() for cell in row)
        gpus.append(
            {
                "index": _number(index),
                "uuid": uuid,
                "bus": bus,
                "name": name,
                "total": _mib(total),
                "used": _mib(used),
                "throttle": _number(throttle, 16),
            }
        )
    return gpus


def _parts_of(gpus: Sequence[Mapping], limit: float) -> list[dict[str, Any]]:
    """Return the MIG instances of this node, none where nvidia-smi does not tell."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=limit)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_mig(done.stdout, gpus)


def parse_mig(text: str, gpus: Sequence[Mapping]) -> list[dict[str, Any]]:
    """Return the MIG instances in what ``nvidia-smi -L`` prints, each with its GPU's facts.

    They have no number of their own: CUDA_VISIBLE_DEVICES calls them by UUID (NVIDIA's MIG user
    guide). The memory of each is not told.
    """
    parents = {gpu["uuid"]: gpu for gpu in gpus}
    parts: list[dict[str, Any]] = []
    parent: Mapping | None = None
    for line in text.splitlines():
        found = re.match(r"\s*(GPU|MIG)\s+(.*?)\s*:?\s*\(UUID: (\S+)\)", line)
        if not found:
            continue
        kind, name, uuid = found.groups()
        if kind == "GPU":
            parent = parents.get(uuid)
        elif parent is not None:
            profile = name.partition(" ")[0]
            own = {"index": None, "uuid": uuid, "name": f"{parent['name']} MIG {profile}"}
            parts.append({**parent, **own, "total": None, "used": None})
    return parts


def _number(text: str, base: int = 10) -> int | None:
    if text.lower() in NO_ANSWER:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def _mib(text: str) -> int | None:
    number = _number(text)
    return None if number is None else number * 2**20


def visible_gpus(gpus: Sequence[Mapping], visible: str | None) -> list[Mapping]:
    """Return what CUDA shows of ``gpus`` under CUDA_VISIBLE_DEVICES, in its order."""
    if visible is None:
        return list(gpus)
    shown = []
    for name in visible.split(","):
        name = name.strip()
        found = [gpu for gpu in gpus if name and _is_called(gpu, name)]
        if not found:
            break  # CUDA stops at the first that is not there
        shown.append(found[0])
    return shown


def _is_called(gpu: Mapping, name: str) -> bool:
    return str(gpu["index"]) == name or (not name.isdigit() and gpu["uuid"].startswith(name))


def assigned(fact: Mapping, local_rank: int, local_size: int) -> Mapping | None:
    """Return the GPU that a local rank takes, None where it sees none.

    Raises BadInput where there are fewer than ranks.
    """
    shown = visible_gpus(fact["gpus"], fact["visible"])
    return shown[gpu_index(local_rank, local_size, len(shown))] if shown else None


def judge(
    facts: Mapping[int, Mapping],
    hosts: Mapping[int, str],
    local: Mapping[int, tuple[int, int]],
    device: str,
) -> list[Verdict]:
    """Judge what ``collect`` found; ``local`` are local rank and size of each rank."""
    if device == "cpu":
        return [Verdict("GPUs", SKIP, "--device cpu")]
    taken: dict[int, Mapping] = {}
    short: list[int] = []
    for rank, fact in facts.items():
        try:
            gpu = assigned(fact, *local[rank])
        except BadInput:
            short.append(rank)
        else:
            if gpu:
                taken[rank] = gpu
    without = [rank for rank in facts if rank not in taken and rank not in short]
    reason = next((fact["reason"] for fact in facts.values()), "")
    if not taken and not short and device == "auto":
        return [Verdict("GPUs", SKIP, f"none on any rank ({reason or 'none is visible'})")]
    if without:
        reasons = some(dict.fromkeys(facts[r]["reason"] or "none is visible" for r in without))
        seen = f"none for {name_ranks(without, hosts)}: {reasons}"
        remedy = (
            "mend the driver (nvidia-smi), ask the scheduler for GPUs, or leave those hosts out"
        )
        hangs = any(facts[rank]["reason"].startswith(HANGS) for rank in without)
        return [Verdict("GPUs", FAIL, seen, remedy, machine=bool(taken) or hangs)]
    if short:
        rank = short[0]
        shown = len(visible_gpus(facts[rank]["gpus"], facts[rank]["visible"]))
        seen = f"{shown} for {local[rank][1]} ranks on the hosts of {name_ranks(short, hosts)}"
        return [Verdict("GPUs", FAIL, seen, "start as many ranks a node as it has GPUs")]
    hidden = [rank for rank in taken if local[rank][1] > 1 and _shows_one(facts[rank])]
    return [
        _distinct(taken, hosts),
        *_peers(hidden, hosts),
        _memory(taken, hosts),
        _clocks(taken, hosts),
    ]


def _shows_one(fact: Mapping) -> bool:
    return len(visible_gpus(fact["gpus"], fact["visible"])) == 1


def _peers(hidden: Sequence[int], hosts: Mapping[int, str]) -> list[Verdict]:
    """Return a warning where ranks of a node see one GPU each: NCCL cannot reach the others'."""
    if not hidden:
        return []
    seen = f"one is visible to {name_ranks(hidden, hosts)}, not those of the node's other ranks"
    remedy = (
        "NCCL sums through the node's memory then, not from GPU to GPU: ask the scheduler for "
        "GPUs a node (--gpus-per-node=8) instead of a task (--gpus-per-task=1)"
    )
    return [Verdict("GPU peers", WARN, seen, remedy)]


def _distinct(taken: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    owners: dict[str, list[int]] = {}
    for rank, gpu in taken.items():
        owners.setdefault(gpu["uuid"], []).append(rank)
    shared = {uuid: ranks for uuid, ranks in owners.items() if len(ranks) > 1}
    if shared:
        seen = some(f"{uuid} for {name_ranks(ranks, hosts)}" for uuid, ranks in shared.items())
        remedy = "one GPU a rank: check CUDA_VISIBLE_DEVICES, or --gpus-per-task of the scheduler"
        return Verdict("GPUs", FAIL, f"shared: {seen}", remedy)
    names = {rank: gpu["name"] for rank, gpu in taken.items()}
    odd = odd_ones("GPU", names, hosts)
    if odd:
        return Verdict("GPUs", WARN, odd, "all wait for the slowest kind: use one kind of GPU")
    return Verdict("GPUs", OK, f"one {names[min(names)]} for each rank")


def _memory(taken: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    used = {
        rank: gpu["used"] / gpu["total"]
        for rank, gpu in taken.items()
        if gpu["used"] is not None and gpu["total"]
    }
    if not used:
        return Verdict("GPU memory", SKIP, "nvidia-smi does not tell")
    for verdict, bound in ((FAIL, MUCH_USED), (WARN, SOME_USED)):
        full = [rank for rank, share in used.items() if share > bound]
        if full:
            most = max(used.values())
            seen = f"up to {most:.0%} in use already: {name_ranks(full, hosts)}"
            remedy = "end what runs there: nvidia-smi lists it"
            return Verdict("GPU memory", verdict, seen, remedy, machine=True)
    least = min(gpu["total"] for gpu in taken.values() if gpu["total"])
    return Verdict("GPU memory", OK, f"free; {least / 1e9:.0f} GB each or more")


def _clocks(taken: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    bits = {rank: gpu["throttle"] for rank, gpu in taken.items() if gpu["throttle"] is not None}
    if not bits:
        return Verdict("GPU clocks", SKIP, "nvidia-smi does not tell")
    slowed = {r: b for r, b in bits.items() if any(b & reason for reason in REASONS)}
    if slowed:
        why = [text for bit, text in REASONS.items() if any(b & bit for b in slowed.values())]
        seen = f"throttled by {', '.join(why)}: {name_ranks(slowed, hosts)}"
        remedy = "see to cooling and power (nvidia-smi -q -d PERFORMANCE), or leave those hosts out"
        return Verdict("GPU clocks", WARN, seen, remedy)
    return Verdict("GPU clocks", OK, "not throttled")
