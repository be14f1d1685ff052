"""Other launchers than mpirun under Slurm: srun, and the hosts of PBS and LSF."""

from __future__ import annotations

import pytest
from support.launch_scripts import stand_in, start
from support.launching import REPOSITORY, TINY
from support.slurm_job import Job

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_RESUME
from hvd_utils.run.event_log import read_events

# Stands for mpirun: says its version, or which hosts it is given.
MPIRUN = """#!/bin/bash
[[ $1 == --version ]] && { echo "mpirun (Open MPI) 5.0.0"; exit; }
while (($#)) && [[ $1 != --hostfile ]]; do shift; done
cat "$2"
echo '{"event": "end"}' >"$OUTPUT/metrics.jsonl"
"""


@pytest.fixture
def site(tmp_path) -> dict[str, str]:
    """Variables of a site whose MPI is a stand-in, which the virtual environment does not hide."""
    path = stand_in(tmp_path / "bin", "mpirun", MPIRUN)
    venv = tmp_path / "venv/bin"
    venv.mkdir(parents=True)
    (venv / "activate").touch()
    return {"PATH": path, "VENV": str(venv.parent), "OUTPUT": str(tmp_path / "run")}


@pytest.mark.parametrize(
    ("variables", "told", "hosts"),
    [
        ({"PBS_NODEFILE": "b b a a"}, "2 hosts of PBS, ranks each: 2", "b slots=2, a slots=2"),
        ({"PBS_NODEFILE": "a b"}, "2 hosts of PBS, ranks each: 1", "a slots=1, b slots=1"),
        (
            {"PBS_NODEFILE": "a b", "RANKS_PER_NODE": "8"},
            "2 hosts of PBS, ranks each: 8",
            "a slots=8, b slots=8",
        ),
        (
            {"LSB_DJOB_HOSTFILE": "a a b b b", "LSB_MCPU_HOSTS": "c 9"},
            "2 hosts of LSF, ranks each: 2 3",
            "a slots=2, b slots=3",
        ),
        ({"LSB_MCPU_HOSTS": "a 8 b 8"}, "2 hosts of LSF, ranks each: 8", "a slots=8, b slots=8"),
        ({"LSB_MCPU_HOSTS": "a 1"}, "1 hosts of LSF, ranks each: 1", "a slots=1"),
        (
            {"LSB_MCPU_HOSTS": "l 1 a 8 b 8"},
            "no ranks on l: it has one slot where the others have 8",
            "a slots=8, b slots=8",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_the_hosts_of_another_scheduler_become_mpiruns(site, tmp_path, variables, told, hosts):
    for name, value in variables.items():
        if name.endswith("FILE"):  # a line for each slot
            file = tmp_path / name
            file.write_text(value.replace(" ", "\n") + "\n")
            variables = variables | {name: str(file)}
    done = start("mpirun_hosts.sh", "--workers", 256, **site, **variables)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    lines = (tmp_path / "run/logs/hosts").read_text().splitlines()
    assert ", ".join(lines) == hosts
    assert "\n".join(lines) in done.stdout  # mpirun was given this file


def test_preflight_is_given_all_of_the_jobs_settings(site, tmp_path):
    """It is refused none, so nothing is checked or measured that the job would not do."""
    stand_in(tmp_path / "bin", "mpirun", MPIRUN.replace("while", 'echo "$@"; while', 1))
    (tmp_path / "hosts").write_text("a slots=1\n")
    given = ("--model", "resnet18", "--init=w.pt", "--on-bad-image", "skip", "--epochs=2")
    hosts = {"PREFLIGHT": "1", "PBS_NODEFILE": str(tmp_path / "hosts")}
    for job, left_out in ({}, False), ({"JOB": "another.py"}, True):
        done = start("mpirun_hosts.sh", *given, **hosts, **job, **site)
        assert done.returncode == 0, done.stderr
        preflight, trained = (
            next(line for line in done.stdout.splitlines() if f" {program} " in line)
            for program in ("hvd_utils.preflight", job.get("JOB", "train_imagenet.py"))
        )
        assert preflight.endswith(" ".join(("", *given)))
        assert trained.endswith(" ".join(("", *given)))
        assert ("--ignore-unknown" in preflight) == left_out


@pytest.fixture
def slurm(site, tmp_path) -> dict[str, str]:
    """The site in a job of Slurm, whose mpirun says what it is given and trains nothing."""
    end = 'echo "{\\"event\\": \\"end\\"}" >"$OUTPUT/metrics.jsonl"'
    told = f'echo "$@"; [[ $* != *train_imagenet* ]] || {end}'
    stand_in(tmp_path / "bin", "mpirun", f"{MPIRUN.partition('while')[0]}{told}\n")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}
    return site | job | {"SLURM_SUBMIT_DIR": str(REPOSITORY)}


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        (("--epochs", "2"), True),
        (("--recipe-x", "lars-32k"), True),
        (("--recipe", "lars-32k"), False),
        (("--epochs=2", "--recipe=tables/1-baseline"), False),
    ],
)
def test_a_recipe_that_is_named_keeps_its_own_workers(slurm, given, workers):
    done = start("resnet50_256gpu.sh", *given, **slurm)
    assert done.returncode == 0, done.stderr
    assert ("--workers 256" in done.stdout) == workers
    assert " ".join(given) in done.stdout


@pytest.mark.parametrize("script", ["resnet50_256gpu.sh", "resnet50_5seeds.sh", "scaling.sh"])
def test_a_job_of_slurm_that_is_not_submitted_is_refused(site, script):
    done = start(script, **site)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("launch: error: this is a job")
    assert "of Slurm: submit it with sbatch" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_job_is_requeued_though_slurm_is_too_busy_to_tell_its_state(slurm, tmp_path):
    stand_in(tmp_path / "bin", "squeue", "#!/bin/sh\necho Socket timed out >&2; exit 1\n")
    stand_in(
        tmp_path / "bin", "scontrol", '#!/bin/sh\n[ $1 != requeue ] || echo "asked: $@"; exit 1\n'
    )
    stand_in(tmp_path / "bin", "mpirun", MPIRUN.partition("while")[0] + "exit 75\n")
    done = start("resnet50_256gpu.sh", **slurm)
    assert "asked: requeue 7\n" in done.stdout, done.stderr
    assert done.returncode == EXIT_RESUME


def test_a_prolonged_run_that_is_told_to_stop_while_it_stages_is_requeued(slurm, tmp_path):
    """The end in its log is of the launch before."""
    stages = "kill -USR1 $PPID; exec sleep 240\n"  # which the launch script passes on to it
    stand_in(tmp_path / "bin", "mpirun", MPIRUN.partition("while")[0] + stages)
    stand_in(tmp_path / "bin", "squeue", "#!/bin/sh\necho RUNNING\n")
    stand_in(tmp_path / "bin", "scontrol", "#!/bin/sh\nexit 1\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"event": "end"}\n')
    done = start("resnet50_256gpu.sh", "--epochs", 100, STAGE_TO=str(tmp_path / "local"), **slurm)
    assert done.returncode == EXIT_RESUME, done.stdout + done.stderr
    assert "told to stop: starting again" in done.stdout


def test_each_node_has_the_cache_of_a_measured_container(slurm, tmp_path):
    version = '[[ $* != *--version ]] || echo "mpirun (Open MPI) 5.0.0"'
    stand_in(tmp_path / "bin", "apptainer", f"#!/bin/bash\n{version}\n")
    (tmp_path / "image.sif").touch()
    cache = tmp_path / "cache"
    container = {"CONTAINER": str(tmp_path / "image.sif")}
    done = start("scaling.sh", "--cache", cache, **slurm | container)
    assert done.returncode == 0, done.stderr
    made, *measured = (line for line in done.stdout.splitlines() if str(cache) in line)
    assert made.endswith(f"mkdir -p {cache}")
    assert measured
    assert all(f"--bind {cache} " in line for line in measured)


def test_what_is_set_for_the_libraries_reaches_the_ranks_of_every_node(site, tmp_path):
    """Not what a container's runtime says of this node alone."""
    stand_in(tmp_path / "bin", "mpirun", MPIRUN.replace("while", 'echo "$@"; while', 1))
    (tmp_path / "hosts").write_text("a slots=1\n")
    passed = ["PYTORCH_CUDA_ALLOC_CONF", "TORCH_LOGS", "TORCHINDUCTOR_CACHE_DIR", "NCCL_DEBUG"]
    passed += [
        "DALI_NVIMGCODEC_LOG_LEVEL",
        "CUBLAS_WORKSPACE_CONFIG",
        "NVIDIA_TF32_OVERRIDE",
        "TRITON_CACHE_DIR",
        "HF_HOME",
        "MLFLOW_TRACKING_URI",
        "WANDB_API_KEY",
    ]
    own = ["NVIDIA_VISIBLE_DEVICES", "MY_TORCH"]
    given = dict.fromkeys([*passed, *own], "1")
    done = start("mpirun_hosts.sh", tmp_path / "hosts", **site, **given)
    assert done.returncode == 0, done.stderr
    for name in passed:
        assert f"-x {name} " in done.stdout
    for name in own:
        assert name not in done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "usage: "),
        ({"PBS_NODEFILE": "/none"}, "cannot read the hosts of this job of PBS: give a HOSTFILE"),
        ({"PBS_NODEFILE": "/dev/null"}, "PBS gave no hosts to this job: give a HOSTFILE"),
    ],
)
def test_a_job_without_hosts_ends_with_one_line(site, variables, said):
    done = start("mpirun_hosts.sh", "--workers", 256, **site, **variables)
    assert done.returncode == EXIT_BAD_INPUT
    assert said in done.stderr.splitlines()[-1]


def test_srun_is_refused_where_it_cannot_start_ranks(site, tmp_path):
    error = "srun: error: pmi/pmix: can not load PMIx library"
    stand_in(tmp_path / "bin", "srun", f"#!/bin/sh\necho '{error}' >&2\nexit 1\n")
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2"}
    for variables, said in (
        (slurm, f"srun --mpi=pmix does not start ranks ({error}): leave out LAUNCHER"),
        (slurm | {"LAUNCHER": "prun"}, "LAUNCHER is prun: set it to mpirun or srun"),
    ):
        done = start("resnet50_256gpu.sh", **site | {"LAUNCHER": "srun"} | variables)
        assert done.returncode == EXIT_BAD_INPUT
        assert done.stderr.startswith(f"launch: error: {said}")
        assert done.stderr.count("\n") == 1


def skip_without_pmix(job: Job) -> None:
    if "can not load PMIx library" in job.console:
        pytest.skip("Slurm's PMIx plugin does not load: run tools/install_test_packages.sh")


def test_srun_trains_on_two_nodes_and_reports_the_first_failure(cluster, tiny_data, tmp_path):
    """What cannot work fails once, though srun itself returns the code of a rank it killed."""
    given = ("--nodes=2", "--ntasks-per-node=1")
    srun = {"LAUNCHER": "srun", "DATA": str(tiny_data)}
    settings = (*TINY, "--workers", "2", "--max-steps", "3")
    trains = Job(cluster, tmp_path / "trains", *given, arguments=settings, **srun)
    program = tmp_path / "broken.py"
    program.write_text(
        "import os, sys, time\n"
        "time.sleep(0 if os.environ['SLURM_PROCID'] == '1' else 60)\n"
        "sys.exit(2)\n"
    )
    broken = Job(cluster, tmp_path / "broken", *given, **srun | {"JOB": str(program)})
    state = trains.finish()
    skip_without_pmix(trains)
    assert (state, trains.fact("Restarts")) == ("COMPLETED", "0"), trains.console
    (begun,) = [event for event in read_events(trains.output) if event["event"] == "start"]
    assert (begun["workers"], len(begun["hosts"])) == (2, 2)
    logs = sorted(file.name for file in (tmp_path / "trains/logs").glob("*/node*.rank-*.log"))
    assert [name.partition(".")[2] for name in logs] == ["rank-0.log", "rank-1.log"]
    assert broken.finish() == "FAILED"
    assert (broken.fact("ExitCode"), broken.fact("Restarts")) == ("2:0", "0"), broken.console


def test_srun_starts_the_ranks_of_many_nodes_each_time(cluster, tmp_path):
    """A rank crashes if another one writes to it before MPI has started there."""
    program = tmp_path / "meet.py"
    program.write_text(
        "from mpi4py import MPI\n"
        "MPI.COMM_WORLD.barrier()\n"
        "from hvd_utils.run.event_log import METRICS\n"
        "if MPI.COMM_WORLD.rank == 0:\n"
        "    import os, pathlib\n"
        "    (pathlib.Path(os.environ['OUTPUT']) / METRICS).write_text('{\"event\": \"end\"}\\n')\n"
    )
    given = {"LAUNCHER": "srun", "DATA": "digits", "RANKS_PER_NODE": "2", "MAX_FAILURES": "0"}
    given |= {"JOB": str(program), "OMPI_MCA_mpi_yield_when_idle": "1"}
    jobs = [Job(cluster, tmp_path / name, "--nodes=8", **given) for name in "abcd"]
    states = [job.finish() for job in jobs]
    skip_without_pmix(jobs[0])
    assert states == ["COMPLETED"] * len(jobs), "".join(job.console for job in jobs)
