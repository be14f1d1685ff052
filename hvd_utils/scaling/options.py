"""The command line of ``python -m hvd_utils.scaling``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hvd_utils.cli.argument_types import above_zero, positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.scaling.calibration import BETWEEN_NODES
from hvd_utils.scaling.collectives import ALGORITHMS
from hvd_utils.scaling.gradients import gradient_bytes
from hvd_utils.scaling.measured import check, first_step, read_curve, read_step
from hvd_utils.scaling.network import PRESETS, Network, preset
from hvd_utils.scaling.overlap import Horovod
from hvd_utils.scaling.predict import IMAGENET, Cluster, Step
from hvd_utils.scaling.published import PAPER_STEP
from hvd_utils.scaling.stragglers import SPREAD

GPUS = tuple(2**i for i in range(3, 13))  # 8 to 4,096
PICTURES = (".png", ".svg", ".pdf")
NETWORK_FLAGS = ("links", "gbit", "goodput", "latency_us", "gpus_per_node", "gpu_gbytes")


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line, with ``step`` and ``clusters`` (one an algorithm).

    Raises BadInput naming the option that cannot work.
    """
    options = _parser().parse_args(arguments)
    if (options.network_for is None) != (options.at is None):
        raise BadInput("--network-for and --at belong together: --network-for 0.9 --at 512")
    for flag in ("json", "plot"):
        file = getattr(options, flag)
        if file and not file.absolute().parent.is_dir():
            raise BadInput(f"--{flag} {file}: there is no folder {file.absolute().parent}: make it")
    if options.plot and options.plot.suffix not in PICTURES:
        raise BadInput(f"--plot {options.plot}: its name has to end in {' or '.join(PICTURES)}")
    options.step = _step(options)
    options.clusters = _clusters(options)
    options.gpus = options.gpus or sorted({p.gpus for p in options.points}) or GPUS
    return options


def _step(options: argparse.Namespace) -> Step:
    """Return the measured step, or the paper's, with what was typed in instead."""
    if (options.seconds is None) != (options.images is None):
        raise BadInput("--seconds and --images belong together: a step's seconds and its images")
    if options.seconds is not None and options.step:
        raise BadInput("give --step, or --seconds and --images, not both")
    if options.measured and (options.seconds is not None or options.step):
        raise BadInput("give --measured, or a step of another measurement, not both")
    step = PAPER_STEP
    options.points = read_curve(options.measured) if options.measured else []
    if options.points:
        step = first_step(options.points, str(options.measured))
    elif options.step:
        step = read_step(options.step)
    elif options.seconds is not None:
        step = Step(options.seconds, options.images)
    typed = {
        "model": options.model,
        "backward_share": options.backward_share,
        "fixed_seconds": options.fixed_seconds,
        "gpus": options.measured_on,
        "spread": options.spread,
    }
    return check(replace(step, **{k: v for k, v in typed.items() if v is not None}))


def _clusters(options: argparse.Namespace) -> dict[str, Cluster]:
    step = options.step
    cluster = Cluster(
        _network(options),
        element_bytes=gradient_bytes(options.precision, options.compression),
        horovod=Horovod(
            options.fusion_mb * 2**20, options.cycle_ms / 1000, overlap=not options.no_overlap
        ),
        spread=SPREAD if step.spread is None else step.spread,
        between_nodes=options.between_nodes,
        input_limit=options.input_limit,
        max_minibatch=options.max_minibatch,
    )
    names = [options.algorithm] if options.algorithm else list(ALGORITHMS)
    return {name: replace(cluster, algorithm=name) for name in names}


def _network(options: argparse.Namespace) -> Network:
    network = preset(options.network)
    typed = {name: getattr(options, name) for name in NETWORK_FLAGS}
    changes = {name: value for name, value in typed.items() if value is not None}
    if "latency_us" in changes:
        changes["latency"] = changes.pop("latency_us") * 1e-6
    if "gpu_gbytes" in changes:
        changes["gpu_bandwidth"] = changes.pop("gpu_gbytes") * 1e9
    if not changes:
        return network
    return replace(network, name=f"{network.name}, changed", **changes)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m hvd_utils.scaling",
        description="Predict step time, images/s, efficiency and hours on 8 to 4,096 GPUs, from "
        "one worker's step and a network. Without options: the paper's cluster.",
        epilog="Try: --step BENCHMARK.json --network edr-2x --network-for 0.85 --at 512",
        allow_abbrev=False,
    )
    _add_step(parser.add_argument_group("the step, as it was measured"))
    _add_network(parser.add_argument_group("the cluster"))
    _add_horovod(parser.add_argument_group("Horovod"))
    _add_questions(parser.add_argument_group("what to tell"))
    return parser


def _add_step(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--step", type=Path, metavar="FILE", help="a benchmark's JSON, or a run's folder")
    add("--measured", type=Path, metavar="FILE", help="instead: what slurm/scaling.sh wrote")
    add("--seconds", type=above_zero, metavar="S", help="instead: seconds of a step")
    add("--images", type=positive, metavar="N", help="n, its images a GPU")
    add("--model", metavar="NAME", help="as of the job (default: the measured one's, or resnet50)")
    add(
        "--backward-share",
        type=_share,
        metavar="X",
        help="of the step, in which gradients become ready: its last backward pass "
        "(default: as measured, or 0.67)",
    )
    add(
        "--fixed-seconds",
        type=_not_negative,
        metavar="S",
        help="of the step, that fewer images would not save (default: as measured, or 0)",
    )
    add("--measured-on", type=positive, metavar="GPUS", help="(default: as measured, or 1)")


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--network",
        default="ethernet-50",
        metavar="NAME",
        help=f"(default: %(default)s) {', '.join(PRESETS)}",
    )
    add("--gpus-per-node", type=positive, metavar="N", help="this and what follows: unlike it")
    add("--links", type=positive, metavar="N", help="network links of a node")
    add("--gbit", type=above_zero, metavar="GBIT", help="line rate of a link, Gbit/s")
    add("--goodput", type=_share, metavar="X", help="share of it that carries gradients")
    add("--latency-us", type=_not_negative, metavar="US", help="of a message between nodes, µs")
    add("--gpu-gbytes", type=above_zero, metavar="GB", help="of a GPU within its node, GB/s")
    add(
        "--spread",
        type=_not_negative,
        metavar="X",
        help="standard deviation of the ranks' computing times, by their mean (default: as "
        f"measured, or {SPREAD:.3f})",
    )
    add(
        "--between-nodes",
        type=_not_negative,
        default=BETWEEN_NODES,
        metavar="X",
        help="that a step over several nodes takes longer, of its computing, as published runs did "
        "(default: %(default)g)",
    )
    add(
        "--input-limit",
        type=above_zero,
        metavar="RATE",
        help="images/s that a node can read and decode (default: no limit)",
    )
    add(
        "--max-minibatch",
        type=positive,
        metavar="KN",
        help="let n shrink so that kn stays below this, as 8192 (default: n is kept)",
    )
    add(
        "--gpus",
        type=_numbers,
        metavar="N,N",
        help="(default: those of --measured, or 8 to 4,096)",
    )


def _add_horovod(group: argparse._ArgumentGroup) -> None:
    add, horovod = group.add_argument, Horovod()
    add(
        "--algorithm",
        choices=tuple(ALGORITHMS),
        help="of allreduce (default: each); the paper's is hierarchical",
    )
    add("--precision", default="fp32", choices=("fp64", "fp32", "tf32", "bf16", "fp16"))
    add("--compression", default="none", choices=("none", "fp16", "bf16"), help="of gradients")
    add(
        "--fusion-mb",
        type=_not_negative,
        default=horovod.fusion_bytes / 2**20,
        metavar="MB",
        help="HOROVOD_FUSION_THRESHOLD (default: %(default)g)",
    )
    add(
        "--cycle-ms",
        type=_not_negative,
        default=horovod.cycle_seconds * 1000,
        metavar="MS",
        help="HOROVOD_CYCLE_TIME (default: %(default)g)",
    )
    add("--no-overlap", action="store_true", help="sum all gradients after backprop")


def _add_questions(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--network-for", type=_share, metavar="X", help="which network gives this efficiency ...")
    add("--at", type=positive, metavar="GPUS", help="... on so many GPUs?")
    add(
        "--stops-paying",
        type=above_zero,
        nargs="?",
        const=1.2,
        metavar="GAIN",
        help="from where on do twice the GPUs gain less than this factor (1.2) ...",
    )
    add(
        "--least-efficiency",
        type=_share,
        default=0.5,
        metavar="X",
        help="... or fall below this efficiency (default: %(default)g)?",
    )
    add("--validate", action="store_true", help="beside published runs, the error of each")
    add("--epochs", type=above_zero, default=90, help="that the hours are of (%(default)g)")
    add("--epoch-images", type=positive, default=IMAGENET, metavar="N", help="(ImageNet's)")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--plot", type=Path, metavar="FILE", help="write a picture, beside the paper's curve")


def _not_negative(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return float(text)


def _share(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1, as 0.9")
    return float(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))
