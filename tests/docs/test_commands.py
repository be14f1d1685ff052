"""Every command of the pages works: run as it stands, but for sizes and places of this machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkpoints import some_model, write_checkpoint
from support.coco import write_coco
from support.failures import note_launch
from support.images import write_jpegs
from support.launching import kill_tree
from support.pages import PAGES, REPOSITORY, commands
from support.preparing import jpeg, tar_of, write_tars
from support.quick_python import quick_python

pytestmark = pytest.mark.long

# Too long for a test, or of a machine that this one is not; where they are tested instead.
ELSEWHERE = {
    "make ": "the target exists",
    "sbatch ": "tests/slurm",
    "horovodrun -np 8 python train_imagenet.py --data s3://": "tests/parallel/loading",
    "python -m dali_pipeline.prepare --from-shards s3://": "tests/unit/preparation",
    "python -m dali_pipeline.prepare --from-shards 'https://": "tests/unit/preparation",
    "horovodrun -np 8 python train_imagenet.py --data index": "tests/unit/preparation",
    "python -m dali_pipeline.stage s3://": "tests/unit/staging/test_stage_from_url.py",
    "scancel ": "tests/slurm",
    "python -m benchmarks.study --quick": "tests/parallel/benchmarks/test_study_runs.py",
    "horovodrun -np 8 python examples/mask_rcnn.py": "tests/parallel/examples",
    'python -c "import torchvision': "tests/unit/weights",  # from the network
    'python -c "import timm': "tests/unit/weights",
}
SMALL = "--model resnet8 --resolution 16 --val-resize 16 --batch-per-worker 64 --epochs 1"
SMALLER = [  # what stands in a page, and what is run
    (r"--model timm/regnety_002", "--model timm/test_byobnet --resolution 64 --val-resize 64"),
    (r"--model mobilenet_v3_small", "--model mobilenet_v3_small --resolution 64 --val-resize 64"),
    (r"-np (8|16|256)\b", "-np 2"),
    (r"--hostfile hosts|--map-by ppr:\d:node", ""),
    (r"--network-interface eth0", "--network-interface lo"),
    (r"--min-np 8 --max-np 32", "--min-np 1 --max-np 2"),
    (r"NCCL_SOCKET_IFNAME=eth0", "NCCL_SOCKET_IFNAME=lo"),
    (r"--workers (256|32)\b", "--workers 4"),
    (r"--max-steps 100\b", "--max-steps 2"),
    (r"--profile 10-12", "--profile 5-7"),
    (r"(train_imagenet\.py.*--init) \S+", r"\1 runs/small"),
    (
        r"(examples/mask_rcnn\.py.*--init) \S+",
        r"\1 runs/backbone --small --model resnet18 --min-size 64 --rois 8 --width 8 --max-steps 1",
    ),
    (r"--epochs 6 --output runs/backbone", "--model resnet8 --epochs 1 --output runs/backbone-new"),
    (r"(examples/made_up_coco\.py) (\S+)", r"\1 \2 --train 30 --val 2"),
    (r"--freeze \S+", "--freeze stem"),
    (r"photo\.jpg", "data/imagenet/val/ant/000.JPEG"),
    (r"runs/resnet50/checkpoints/best\.pt", "runs/resnet18"),
    (r"--eval-only runs/hour", "--eval-only runs/small"),
    (r"resnet50_5seeds-JOBID/seed-\*", "demo"),
    (r"/shared/run\b", "shared/run"),
    (r"/shared/", "shared/"),
    (r"\bTARS /data/imagenet\b", "tars data/from-tars"),
    (r"--data /data/my-images", "--data /data/imagenet"),
    (r"/(data|local)/", r"\1/"),
    (r"train_imagenet\.py", f"train_imagenet.py {SMALL}"),
    (r"(hvd_utils\.preflight)", r"\1 --quick --gpu-rate 100"),
    (r"(dali_pipeline\.prepare) tars", r"\1 --any-count tars"),
    (r"(dali_pipeline\.prepare)", r"\1 --processes 1"),
    (r"^(python -m dali_pipeline\.benchmark)$", r"\1 --only full"),
    (r"1000000,10000000,100000000,1000000000", "1000,20000"),
    (r"(dali_pipeline\.benchmark)", r"\1 --images 40 --rounds 1 --batch 8"),
    (r"runs/p\$p", "runs/p$p --resume never"),
]

ALL = {command: page for page in reversed(PAGES) for command in commands(page)}  # each once


def smaller(command: str) -> str:
    """Return a page's command for this machine."""
    for pattern, instead in SMALLER:
        command = re.sub(pattern, instead, command)
    return command


def run(command: str, folder: Path, timeout: float = 600) -> str:
    """Run a command by bash in a folder, with the python in bin/; return what it printed."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": str(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        pytest.fail(f"not finished after {timeout} s: {command}")
    note_launch(["bash", "-c", command], output)
    assert process.returncode == 0, f"{command}\n{output[-3000:]}"
    return output


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A checkout with data sets and finished runs at the places that the pages name."""
    root = tmp_path_factory.mktemp("checkout")
    for entry in REPOSITORY.iterdir():
        if entry.name not in ("runs", "data", ".git"):
            (root / entry.name).symlink_to(entry)
    imagenet = root / "data/imagenet"
    write_jpegs(imagenet / "train", {"ant": 100, "bee": 100, "cat": 100}, seed=1)
    write_jpegs(imagenet / "val", {"ant": 10, "bee": 20, "cat": 20}, seed=2)
    shutil.copytree(imagenet / "train/ant", root / "data/my-images/train/ant")
    write_tars(root / "tars")
    for split in ("train", "val"):
        (root / "data/shards" / split).mkdir(parents=True)
        images = {f"{number}.jpg": jpeg(number) for number in range(128)}
        labels = {f"{number}.cls": b"%d" % (number % 2) for number in range(128)}
        labelled = dict(sorted((images | labels).items()))
        (root / "data/shards" / split / "0.tar").write_bytes(tar_of(labelled))
    script = root / "discover.sh"
    script.write_text("#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n")
    script.chmod(0o755)
    (root / "local").mkdir()
    (root / "bin").mkdir()
    for page_command in (
        "horovodrun -np 2 python train_imagenet.py --output runs/demo",
        "python train_imagenet.py --data /data/imagenet --output runs/small",
    ):
        run(smaller(page_command), root)
    resnet18 = some_model("resnet18", 3)
    for name in ("resnet18", "backbone"):
        write_checkpoint(root / "runs" / name, resnet18, ["ant", "bee", "cat"], model="resnet18")
    write_coco(root / "data/shapes", train=20, val=2)
    # The rest need not import PyTorch anew.
    quick = root / "bin" / "python"
    quick.write_text(f'#!/bin/sh\nexec {shlex.join(quick_python())} "$@"\n')
    quick.chmod(0o755)
    return root


@pytest.mark.parametrize(
    "command", ALL, ids=[f"{page.stem}-{command[:60]}" for command, page in ALL.items()]
)
def test_a_command_works(command, folder):
    first = next((start for start in ELSEWHERE if command.startswith(start)), None)
    if first == "make ":
        target = command.split()[1]
        assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    elif first == "sbatch ":
        script = next(word for word in command.split() if word.endswith(".sh"))
        run(f"bash -n {script}", folder)
        used = (REPOSITORY / "tests").rglob("*.py")
        assert any(Path(script).name in path.read_text(encoding="utf-8") for path in used)
    elif first is None:
        run(smaller(command), folder)
