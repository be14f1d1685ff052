"""The containers are alike and whole, launch.sh runs ranks in one, and Kubernetes knows our job."""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.launch_scripts import stand_in, start
from support.launching import REPOSITORY

from hvd_utils.cli.errors import EXIT_BAD_INPUT

DEFINITION = (REPOSITORY / "containers/imagenet.def").read_text(encoding="utf-8")
DOCKERFILE = (REPOSITORY / "containers/Dockerfile").read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    """The lines of a part of the Apptainer definition."""
    (text,) = re.findall(rf"^%{name}\n((?:    .*\n)+)", DEFINITION, re.MULTILINE)
    return [line.strip() for line in text.splitlines()]


def copied() -> list[str]:
    """What the Dockerfile copies."""
    copies = [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    for *sources, to in copies:
        assert to == ("/opt/imagenet/" if sources[1:] else f"/opt/imagenet/{sources[0]}")
    return [source for *sources, _ in copies for source in sources]


def test_both_containers_are_made_of_the_same():
    suite = re.search(r"^OSVersion: (\w+)$", DEFINITION, re.MULTILINE)[1]
    assert "Bootstrap: debootstrap\n" in DEFINITION
    assert f"FROM debian:{suite}-slim\n" in DOCKERFILE
    assert [f"{path} /opt/imagenet/" for path in copied()] == section("files")
    assert section("post") == re.findall(r"^RUN (.*)$", DOCKERFILE, re.MULTILINE)
    assert (REPOSITORY / section("post")[0].removeprefix("/opt/imagenet/")).stat().st_mode & 0o111
    exported = [line.removeprefix("export ") for line in section("environment")]
    assert exported == re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)


def test_a_container_has_all_that_is_set_up_and_run():
    have = set(copied())
    assert all([*REPOSITORY.glob(pattern)] for pattern in have)
    setup = (REPOSITORY / "tools/setup.sh").read_text(encoding="utf-8")
    digested = re.search(r"wanted=\$\(cat (.*?) \|", setup)[1].split()
    roots = {"train_imagenet.py", "README.md", "LICENSE", "pyproject.toml", "Makefile", "slurm"}
    roots |= {path.split("/")[0] for path in digested} | {"hvd_utils", "dali_pipeline", "recipes"}
    assert [root for root in roots if not any(fnmatch(root, one) for one in have)] == []
    # What the scripts put into .venv/bin/activate, the container sets for all.
    added = re.findall(r"^(?: *export|[ ]{4}export) (.*)$", setup, re.MULTILINE)
    names = {name for line in added for name in re.findall(r"\b([A-Z_a-z]+)=", line)}
    assert names
    exported = {line.removeprefix("export ").partition("=")[0] for line in section("environment")}
    assert names | {"PATH", "VIRTUAL_ENV", "CUDA"} == exported


@pytest.fixture
def site(tmp_path) -> dict[str, str]:
    """Variables of a site with an Apptainer, a stand-in that notes its arguments, and an image."""
    path = stand_in(
        tmp_path / "bin",
        "apptainer",
        f'#!/bin/bash\necho "$@" >>{tmp_path}/calls\n'
        'while [[ $1 != *.sif ]]; do shift; done\nshift\nexec "$@"\n',
    )
    (tmp_path / "image.sif").touch()
    return {
        "CONTAINER": str(tmp_path / "image.sif"),
        "OUTPUT": str(tmp_path / "run"),
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "PATH": path,
        "TMPDIR": str(tmp_path),
    }


def test_ranks_run_in_the_container_and_mpirun_outside(site, tiny_data, tmp_path):
    program = tmp_path / "job.py"
    program.write_text(
        "import os, sys\nfrom mpi4py import MPI\n"
        "world = MPI.COMM_WORLD\n"
        "print('rank', world.rank, 'of', world.size, *sys.argv[1:], flush=True)\n"
        "if world.rank == 0:\n"
        "    open(f'{sys.argv[4]}/metrics.jsonl', 'w').write('{\"event\": \"end\"}')\n"
    )
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    staged = tmp_path / "local/data"
    variables = {"DATA": str(tiny_data), "STAGE_TO": str(staged), "JOB": str(program)}
    cache = tmp_path / "local/cache"
    done = start("mpirun_hosts.sh", hosts, "--epochs", 1, "--cache", cache, **site | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        given = f"--data {staged} --output {tmp_path / 'run'} --epochs 1 --cache {cache}"
        assert f"rank {rank} of 2 {given}" in done.stdout
    assert (staged / "train").is_dir()
    bound = (REPOSITORY, tmp_path / "run", tiny_data, tmp_path, staged, cache)
    binds = " ".join(f"--bind {folder}" for folder in bound)
    prefix = f"exec --nv --pwd {REPOSITORY} {binds} {site['CONTAINER']} "
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(call.startswith(prefix) for call in calls)
    commands = [call.removeprefix(prefix) for call in calls]
    assert commands.count("mpirun --version") == 1
    assert sum(command.startswith("python -m dali_pipeline.stage ") for command in commands) == 1
    assert sum(command.startswith(f"python {program} ") for command in commands) == 2
    assert sum(command.startswith("python -m hvd_utils.requeue ") for command in commands) == 1


OTHER = 'if [[ $* == *"mpirun --version" ]]; then echo "mpirun (Open MPI) 4.1.4"; fi'


@pytest.mark.parametrize(
    ("variables", "apptainer", "said"),
    [
        ({"CONTAINER": "/none.sif"}, "", "no container /none.sif: build it from containers/"),
        ({"PATH": "/usr/bin:/bin"}, "", "no apptainer or singularity on the PATH: set MODULES"),
        ({}, "echo FATAL: no squashfs >&2; exit 255", "does not run here, or has no mpirun: FATAL"),
        ({}, OTHER, "Open MPI is 4: set MODULES to Open MPI 4"),
    ],
)
def test_a_container_that_cannot_work_ends_with_one_line(
    site, tmp_path, variables, apptainer, said
):
    if apptainer:
        stand_in(tmp_path / "bin", "apptainer", f"#!/bin/bash\n{apptainer}\n")
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    venv = {"VENV": os.environ.get("VIRTUAL_ENV", "")}
    done = start("mpirun_hosts.sh", hosts, **site | venv | variables)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("launch: error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_install_script_passes_shellcheck():
    scripts = ("containers/install.sh", "tools/try_container.sh", "tools/try_distribution.sh")
    try:
        done = subprocess.run(
            ["shellcheck", "-x", *scripts], cwd=REPOSITORY, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no shellcheck here: run tools/install_test_packages.sh")
    assert done.returncode == 0, done.stdout


JOB = yaml.safe_load((REPOSITORY / "kubernetes/mpijob.yaml").read_text(encoding="utf-8"))
Schema = dict[str, Any]
TEXT, NUMBER, SWITCH, ANY = ({"type": name} for name in ("string", "integer", "boolean", "object"))
QUANTITIES = {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}}


def fields(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": [*required], "properties": properties}


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


# The fields that our job has, of MPIJob v2beta1 and of Kubernetes' pods, written from their
# documentation. MPIJOB_CRD=FILE checks against all that the operator publishes: in the repository
# kubeflow/mpi-operator, manifests/base/kubeflow.org_mpijobs.yaml.
CONTAINER = fields(
    "name",
    name=TEXT,
    image=TEXT,
    command=many(TEXT),
    args=many(TEXT),
    env=many(fields("name", name=TEXT, value=TEXT)),
    resources=fields(requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=many(fields("name", "mountPath", name=TEXT, mountPath=TEXT, readOnly=SWITCH)),
    readinessProbe=fields(
        tcpSocket=fields("port", port={"x-kubernetes-int-or-string": True}), periodSeconds=NUMBER
    ),
)
VOLUME = fields(
    "name",
    name=TEXT,
    persistentVolumeClaim=fields("claimName", claimName=TEXT, readOnly=SWITCH),
    emptyDir=fields(medium=TEXT, sizeLimit={"x-kubernetes-int-or-string": True}),
)
POD = fields(
    "containers",
    terminationGracePeriodSeconds=NUMBER,
    containers=many(CONTAINER),
    volumes=many(VOLUME),
)
OURS = fields(
    apiVersion=TEXT,
    kind=TEXT,
    metadata=ANY,
    spec=fields(
        "mpiReplicaSpecs",
        slotsPerWorker=NUMBER,
        mpiImplementation={"type": "string", "enum": ["OpenMPI", "Intel", "MPICH"]},
        launcherCreationPolicy=TEXT,
        runPolicy=fields(cleanPodPolicy=TEXT, backoffLimit=NUMBER),
        mpiReplicaSpecs={
            "type": "object",
            "additionalProperties": fields(
                replicas=NUMBER, restartPolicy=TEXT, template=fields(metadata=ANY, spec=POD)
            ),
        },
    ),
)
TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}


def wrong(value: Any, schema: Schema, place: str = "job") -> list[str]:
    """What a schema finds wrong: unknown fields too, which Kubernetes would drop in silence."""
    kind = TYPES.get(schema.get("type", ""), (int, str))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{place} is {value!r}"]
    if value not in schema.get("enum", [value]):
        return [f"{place} is {value}"]
    if isinstance(value, list):
        each = [wrong(one, schema["items"], f"{place}[{i}]") for i, one in enumerate(value)]
        return [line for lines in each for line in lines]
    found = []
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        found += [
            f"{place} has no {name}" for name in schema.get("required", []) if name not in value
        ]
        for name, part in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            at = f"{place}.{name}"
            found += wrong(part, known, at) if known else [f"{at} is not known"]
    return found


def schemas() -> list[Any]:
    """Our part of it, and all of it where MPIJOB_CRD names the operator's file."""
    path = os.environ.get("MPIJOB_CRD")
    if not path:
        skip = pytest.mark.skip(reason="MPIJOB_CRD does not name the operator's file")
        return [pytest.param(OURS, id="ours"), pytest.param(None, id="published", marks=skip)]
    definition = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v2beta1"]
    published = version["schema"]["openAPIV3Schema"]
    return [pytest.param(OURS, id="ours"), pytest.param(published, id="published")]


@pytest.mark.parametrize("schema", schemas())
def test_kubernetes_knows_every_field_of_our_job(schema):
    assert (JOB["apiVersion"], JOB["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    assert wrong(JOB, schema) == []
    for broken, said in (
        ({"slotsPerWorker": "8"}, "job.spec.slotsPerWorker is '8'"),
        ({"mpiImplementation": "OpenMP"}, "job.spec.mpiImplementation is OpenMP"),
        ({"slots": 8}, "job.spec.slots is not known"),
    ):
        assert wrong(JOB | {"spec": JOB["spec"] | broken}, schema) == [said]
    assert wrong(JOB | {"spec": {}}, schema) == ["job.spec has no mpiReplicaSpecs"]


def test_the_job_of_kubernetes_is_the_papers():
    replicas = JOB["spec"]["mpiReplicaSpecs"]
    (launcher,) = replicas["Launcher"]["template"]["spec"]["containers"]
    (worker,) = replicas["Worker"]["template"]["spec"]["containers"]
    assert replicas["Worker"]["replicas"] * JOB["spec"]["slotsPerWorker"] == 256
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == JOB["spec"]["slotsPerWorker"]
    assert launcher["args"] == ["--workers", "256"]
    script, hosts = launcher["command"]
    assert (REPOSITORY / script.removeprefix("/opt/imagenet/")).exists()
    assert hosts == "/etc/mpi/hostfile"  # where the operator writes it
    known = (REPOSITORY / "slurm/resnet50_256gpu.sh").read_text(encoding="utf-8")
    assert all(f'"${{{one["name"]}:=' in known for one in launcher["env"])
    for replica in replicas.values():
        pod = replica["template"]["spec"]
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
