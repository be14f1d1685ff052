"""The launch scripts on a real Slurm: who runs where, and how a job lives on or ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from programs.one_of_many import assert_they_split_an_epoch
from support.launching import REPOSITORY, TINY, kill_tree, train
from support.slurm_job import TIDY, Job

from hvd_utils.cli.errors import EXIT_RESUME
from hvd_utils.inspect.compare import differences, newest
from hvd_utils.run.checkpoint import list_checkpoints
from hvd_utils.run.event_log import METRICS, read_events
from hvd_utils.scaling.measured import read_curve

pytestmark = pytest.mark.long

SCRIPTS = sorted((REPOSITORY / "slurm").glob("*.sh"))
STEPS = 16
DOUBLE = (*TINY, "--precision", "fp64", "--workers", "4", "--max-steps", STEPS, "--epochs", "99")


def test_256_ranks_on_32_nodes_have_their_places_and_split_an_epoch(cluster, tiny_data, tmp_path):
    """The script as it stands, for 256 ranks that need neither GPUs nor MPI's own traffic."""
    job = Job(cluster, tmp_path / "run", JOB="tests/programs/one_of_many.py", DATA=str(tiny_data))
    assert job.finish() == "COMPLETED", job.console
    files = sorted((tmp_path / "run" / "logs").glob("*/node*.rank-*.log"))
    places = [json.loads(file.read_text()) for file in files]
    assert '[1,255]<stdout>: {"rank": 255, "node": "node32"' in job.console
    assert sorted(place["rank"] for place in places) == [*range(256)]
    spots = {(place["node"], place["local_rank"]) for place in places}
    assert spots == {(node, local) for node in cluster.names() for local in range(8)}
    assert all(place["gpu"] == place["local_rank"] for place in places)
    assert_they_split_an_epoch(tmp_path / "run", 256)


def test_steps_are_measured_on_more_and_more_nodes(cluster, tiny_data, tmp_path):
    """``slurm/scaling.sh``, a CPU rank a node: 1 and 2 nodes, on made-up images and on data."""
    settings = ("--device", "cpu", "--model", "resnet8", "--resolution", "16", "--val-resize", "16")
    job = Job(
        cluster, tmp_path / "scaling", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0",
        arguments=(*settings, "--batch-per-worker", "4", "--loader-threads", "1"),
        script="scaling.sh", DATA=str(tiny_data), STEPS="6", LOG_EVERY="2",
    )  # fmt: skip
    assert job.finish() == "COMPLETED", job.console
    points = read_curve(job.output / "scaling.json")
    assert [(point.input, point.gpus) for point in points] == [
        *(("synthetic", ranks) for ranks in (1, 2)),
        *(("data", ranks) for ranks in (1, 2)),
    ]
    assert {(point.images, point.model) for point in points} == {(4, "resnet8")}


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory):
    """The last checkpoint of a run without Slurm, on one process."""
    run = tmp_path_factory.mktemp("undisturbed")
    ended = train(*DOUBLE, "--data", tiny_data, "--output", run, by="python")
    assert ended.code == 0, ended.output
    return newest(run)


@pytest.fixture(scope="module")
def begun(tiny_data, tmp_path_factory) -> Path:
    """A checkpoint after two steps, of a run of its own."""
    run = tmp_path_factory.mktemp("begun")
    ended = train(*DOUBLE, "--max-steps", 2, "--data", tiny_data, "--output", run, by="python")
    assert ended.code == 0, ended.output
    return list_checkpoints(run)[0]


def small(
    cluster, data: Path, run: Path, nodes: int, *options: str, pause: float = 0.5,
    arguments: tuple[object, ...] = (),
) -> Job:  # fmt: skip
    """A run of few steps, one rank a node."""
    return Job(
        cluster, run, f"--nodes={nodes}", "--ntasks-per-node=1", *options,
        arguments=(*DOUBLE, *arguments),
        DATA=str(data), JOB="tests/programs/slow_job.py", PAUSE=str(pause),
    )  # fmt: skip


def assert_whole(job: Job, undisturbed: dict, first: int = 1) -> None:
    """The job is done, with the weights of the undisturbed run and each step logged once."""
    assert job.finish() == "COMPLETED", job.console
    assert max(differences(newest(job.output), undisturbed).values()) < 1e-10
    steps = [event["step"] for event in read_events(job.output) if event["event"] == "step"]
    assert steps == [*range(first, STEPS + 1)]


def test_jobs_live_through_what_happens_to_them(cluster, tiny_data, tmp_path, undisturbed, begun):
    """Four at the same time: left alone, requeued, at its time limit, and robbed of a node.

    The one with a time limit began from another run's checkpoint, which its command still names
    when it is started again.
    """
    limited = small(
        cluster, tiny_data, tmp_path / "limited", 2, "--signal=B:USR1@100", pause=3,
        arguments=("--resume", begun),
    )  # fmt: skip
    requeued = small(cluster, tiny_data, tmp_path / "requeued", 2)
    robbed = small(cluster, tiny_data, tmp_path / "robbed", 2)
    alone = small(cluster, tiny_data, tmp_path / "alone", 4, pause=0)

    limited.train_until(4)
    minutes = int(limited.fact("RunTime").split(":")[1]) + 2
    limited.update(f"TimeLimit={minutes}")  # Slurm looks every half minute, and then signals

    requeued.train_until(5)
    cluster.run("scontrol", "requeue", requeued.id)

    robbed.train_until(5)
    nodes = cluster.run("scontrol", "show", "hostnames", robbed.fact("NodeList")).split()
    lost = next(node for node in nodes if node != robbed.fact("BatchHost"))
    cluster.lose_node(lost)
    robbed.wait_for(lambda: "starting again" in robbed.console)
    cluster.run("scontrol", "update", f"NodeName={lost}", "State=DOWN", "Reason=lost")

    limited.wait_for(lambda: "starting again from step" in limited.console)
    assert "told to stop (USR1)" in limited.console
    for job in (limited, requeued, robbed, alone):
        assert_whole(job, undisturbed, first=3 if job is limited else 1)
    assert [job.fact("Restarts") for job in (alone, requeued, limited)] == ["0", "1", "1"]
    assert int(robbed.fact("Restarts")) >= 1  # more if it got the lost node again
    assert lost not in robbed.fact("NodeList")


def test_a_job_stages_its_data_is_checked_and_trains(cluster, tiny_data, tmp_path):
    staged = cluster.local / "data"  # another folder on each node
    job = Job(
        cluster, tmp_path / "run", "--nodes=2", "--ntasks-per-node=1",
        arguments=(*TINY, "--workers", "2", "--max-steps", "3"),
        DATA=str(tiny_data), STAGE_TO=str(staged), PREFLIGHT="1",
    )  # fmt: skip
    assert job.finish() == "COMPLETED", job.console
    assert not staged.exists()  # here
    for said in ("ok    ranks", "2 of 2 answer, on 2 nodes", f"data: {staged}: 30 training"):
        assert said in job.console
    (start,) = [event for event in read_events(job.output) if event["event"] == "start"]
    assert (start["workers"], len(start["hosts"])) == (2, 2)


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({"DATA": ""}, (), "no data set: set DATA"),
        ({"DATA": "digits"}, ("--epochs", "-1"), "--epochs -1"),
        ({"DATA": "/nowhere", "PREFLIGHT": "1"}, (), "preflight failed"),
    ],
)
def test_a_broken_setting_fails_once(cluster, tmp_path, variables, arguments, said):
    job = Job(
        cluster, tmp_path / "run", "--nodes=2", "--ntasks-per-node=1",
        arguments=arguments, IMAGENET_DIR="", **variables,
    )  # fmt: skip
    assert job.finish() == "FAILED", job.console
    assert (job.fact("ExitCode"), job.fact("Restarts")) == ("2:0", "0")
    assert said in job.console


def test_a_job_that_keeps_failing_stops(cluster, tiny_data, tmp_path):
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit(1)\n")
    job = Job(
        cluster, tmp_path / "run", "--nodes=2", "--ntasks-per-node=1",
        DATA=str(tiny_data), JOB=str(program), MAX_FAILURES="1",
    )  # fmt: skip
    assert job.finish() == "FAILED", job.console
    assert (job.fact("ExitCode"), job.fact("Restarts")) == ("1:0", "1")
    assert "not started again: the job failed with code 1, and 1 restarts" in job.console


def test_five_seeds_have_a_folder_each_and_only_the_one_that_fails_starts_again(cluster, tmp_path):
    """The last seed: its task has the number of the whole array. Submitted from anywhere."""
    program = tmp_path / "told.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "told = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "starts = int(os.environ.get('SLURM_RESTART_COUNT', '0')) + 1\n"
        "if told['--seed'] == '5' and starts == 1:\n"
        "    sys.exit(1)\n"
        "log = pathlib.Path(told['--output'], 'metrics.jsonl')\n"
        'log.write_text(\'{"event": "end", "seed": %s, "starts": %d}\' '
        "% (told['--seed'], starts))\n"
    )
    job = cluster.run(
        *("sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=1"),
        f"--output={tmp_path}/%a.console",
        REPOSITORY / "slurm" / "resnet50_5seeds.sh",
        cwd=tmp_path,
        DATA="digits", OUTPUT=str(tmp_path / "runs"), JOB=str(program), PREFLIGHT="0",
    )  # fmt: skip
    last = tmp_path / "5.console"
    wait_until(lambda: last.exists() and "starting again" in last.read_text())
    time.sleep(TIDY)
    cluster.run("scontrol", "update", f"JobId={job}_5", "StartTime=now")
    ends = [tmp_path / "runs" / f"seed-{seed}" / METRICS for seed in range(1, 6)]
    wait_until(lambda: all(end.exists() for end in ends))
    time.sleep(1)
    told = [json.loads(end.read_text()) for end in ends]
    assert [end["seed"] for end in told] == [1, 2, 3, 4, 5]
    assert [end["starts"] for end in told] == [1, 1, 1, 1, 2]


def wait_until(happened: Callable[[], object], seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.5)


@pytest.fixture
def without_slurm(tiny_data, tmp_path):
    """A function that starts mpirun_hosts.sh on two ranks here; returns the process and its run."""
    started = []

    def start(*arguments: object, **variables: str) -> tuple[subprocess.Popen, Path]:
        hosts, run = tmp_path / "hosts", tmp_path / "run"
        hosts.write_text("localhost slots=2\n")
        given = {
            "PREFLIGHT": "0", "DATA": str(tiny_data), "OUTPUT": str(run),
            "PYTHONPATH": str(REPOSITORY), "OMPI_MCA_mpi_yield_when_idle": "1",
        }  # fmt: skip
        process = subprocess.Popen(
            [*map(str, (REPOSITORY / "slurm" / "mpirun_hosts.sh", hosts, *arguments))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **given, **variables}, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process, run

    yield start
    for process in started:
        if process.poll() is None:
            kill_tree(process)


def test_mpirun_with_a_host_file_trains_and_saves_when_it_is_told_to(without_slurm):
    settings = (*TINY, "--epochs", "9000", "--reference-rate", "0.0125")
    process, run = without_slurm(*settings, JOB="tests/programs/slow_job.py", PAUSE="0.2")

    def steps() -> list[int]:
        log = run / METRICS
        events = read_events(run) if log.exists() else ()
        return [event["step"] for event in events if event["event"] == "step"]

    wait_until(lambda: len(steps()) >= 3)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == EXIT_RESUME, output
    assert newest(run)["step"] == steps()[-1] >= 3


def test_without_slurm_a_job_that_fails_is_started_again(without_slurm, tmp_path):
    program = tmp_path / "fails_once.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "run = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"
        "if os.environ['OMPI_COMM_WORLD_RANK'] == '0':\n"
        "    again = (run / 'failed').exists()\n"
        "    (run / 'failed').touch()\n"
        "    if not again:\n"
        "        sys.exit(1)\n"
        "    (run / 'metrics.jsonl').write_text('{\"event\": \"end\"}')\n"
    )
    process, _ = without_slurm(JOB=str(program))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "the job failed with code 1: starting again from the beginning, 1 of 3" in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck(script):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here: run tools/install_test_packages.sh")
    done = subprocess.run(
        ["shellcheck", "-x", script.relative_to(REPOSITORY)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
