#!/usr/bin/env python3
"""Build Horovod 0.28.1 from its source distribution into this Python's environment, and prove it.

Horovod's last release neither compiles with a current PyTorch nor launches under Open MPI 5. The
series of patches in ``patches/horovod-0.28.1`` is everything that is changed. The MPI is the one
whose ``mpirun`` comes first on the PATH. With a CUDA toolkit of PyTorch's CUDA version the build
has NCCL for GPU tensors; it runs on a machine without a GPU too. Where there is a GPU but no such
toolkit, CUDA 13's is brought as wheels. Without both, the build has MPI and Gloo only.

    python tools/install_horovod.py [--log FILE] [--force] [--wheel DIR]

``--wheel`` copies the wheel to DIR, for nodes that build nothing; its version names the PyTorch,
the CUDA and the MPI that it was built for.

Environment: ``CUDA_HOME`` names the toolkit; ``HOROVOD_WITHOUT_GPU=1`` leaves NCCL out; ``CUDA=12``
and ``CUDA=13`` ask for it where no GPU is; ``HOROVOD_NCCL_HOME`` names one for a PyTorch without;
``HOROVOD_BUILD_CUDA_CC_LIST=80,90`` limits the GPU generations; ``MAKEFLAGS=-j16`` the parallelism.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path

import cuda_toolkit
import patching
from step import Failure, run

VERSION = "0.28.1"
PATCHES = Path(__file__).resolve().parent.parent / "patches" / f"horovod-{VERSION}"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"


ALLREDUCE = """
import horovod.torch as hvd, torch
hvd.init()
assert hvd.size() == 2, f"{hvd.size()} ranks, not 2"
total = hvd.allreduce(torch.tensor([1.0 + hvd.rank()]), op=hvd.Sum)
assert total.item() == 3.0, total
"""


def mpi_compiler() -> Path:
    """The compiler wrapper that belongs to the first mpirun on the PATH."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        raise Failure("no mpirun on the PATH: run tools/setup.sh, or load your site's MPI module")
    mpicxx = Path(mpirun).parent / "mpicxx"
    if not mpicxx.exists():
        raise Failure(f"{mpirun} has no mpicxx beside it: install the MPI's development files")
    return mpicxx


def without_nccl(reason: str) -> str:
    """What a build without NCCL cannot do, in a line that is not overlooked."""
    return (
        f"\033[1mwarning: Horovod is built WITHOUT NCCL ({reason}): it trains on CPUs or on one "
        "GPU. For nodes with GPUs: CUDA=13 make setup (CUDA=12 for drivers before 580)\033[0m"
    )


def nccl(work: Path, toolkit: Path) -> dict[str, str]:
    """Point Horovod at PyTorch's NCCL: the wheel has no unversioned libnccl.so."""
    import torch

    header, library = cuda_toolkit.find_nccl(
        Path(torch.__file__).parent.parent,
        torch.cuda.nccl.version()[0],
        os.environ.get("HOROVOD_NCCL_HOME"),
        [toolkit, Path("/usr/local"), Path("/usr")],
    )
    link = work / "nccl/libnccl.so"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    return {
        "HOROVOD_NCCL_LIB": str(link.parent),
        "HOROVOD_NCCL_INCLUDE": str(header.parent),
        "HOROVOD_NCCL_LINK": "SHARED",
    }


def build_settings(work: Path, toolkit: Path | str) -> dict[str, str]:
    """Horovod's documented build variables for PyTorch with MPI and Gloo, and NCCL if possible."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory_gb / 2)))  # some files take 2 GB
    settings = {
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_CPU_OPERATIONS": "MPI",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses the bundled Gloo otherwise
        "MAKEFLAGS": os.environ.get("MAKEFLAGS") or f"-j{jobs}",
    }
    if isinstance(toolkit, Path):
        import torch

        # Compiled into PyTorch; torch.cuda.get_arch_list() hides it where no GPU is.
        flags = torch._C._cuda_getArchFlags() or ""
        settings |= {
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_CUDA_HOME": str(toolkit),
            "CUDA_HOME": str(toolkit),  # PyTorch would derive it from any nvcc on the PATH
            "PATH": f"{toolkit}/bin:{os.environ['PATH']}",
            "HOROVOD_BUILD_CUDA_CC_LIST": os.environ.get("HOROVOD_BUILD_CUDA_CC_LIST")
            or cuda_toolkit.compute_capabilities(flags, toolkit),
            **nccl(work, toolkit),
        }
    else:
        settings["HOROVOD_WITHOUT_GPU"] = "1"  # also where a toolkit of another version lies about
    return settings


def unpack(work: Path, log: Path, folder: Path) -> Path:
    """Download the source distribution to ``work``, check it and unpack it in ``folder``."""
    archive = work / f"horovod-{VERSION}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary", "horovod", "--dest", str(work), f"horovod=={VERSION}"]
        run(command, log, "cannot download Horovod: check the network, or pip's index settings")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        archive.unlink()
        raise Failure(f"{archive} is not the released file (deleted): run the set-up again")
    source = folder / f"horovod-{VERSION}"
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return source


def fetch_source(work: Path, log: Path) -> Path:
    """Unpack the source distribution and apply the patches."""
    source = unpack(work, log, work)
    try:
        for patch in patching.series(PATCHES):
            patching.apply(patch, source)
    except (patching.DoesNotFit, OSError) as error:
        raise Failure(f"a patch of Horovod does not fit: {error}") from error
    return source


def prove(log: Path, with_nccl: bool) -> None:
    """Check the build's own report, mpi4py, and an allreduce over two ranks by MPI and by Gloo."""
    remedy = f"the build does not work here: see {log}"
    report = run(["horovodrun", "--check-build"], log, remedy)
    for feature in ["PyTorch", "MPI", "Gloo"] + ["NCCL"] * with_nccl:
        if f"[X] {feature}" not in report:
            raise Failure(f"Horovod was built without {feature}: see {log}")
    python = [sys.executable, "-c"]
    hello = [*python, "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2"]
    # torch's CUDA build takes a while to load from a slow disk.
    limit = {"timeout": 300}
    try:
        run(["mpirun", "-np", "2", *hello], log, remedy, **limit)
    except Failure:
        print("mpi4py's wheel does not fit this MPI: building it from source")
        command = [sys.executable, "-m", "pip", "install", "--force-reinstall", "--no-deps"]
        command += ["--no-binary", "mpi4py", "mpi4py"]
        mpicc = mpi_compiler().with_name("mpicc")
        run(
            command,
            log,
            "cannot build mpi4py",
            env={**os.environ, "MPI4PY_BUILD_MPICC": str(mpicc)},
        )
        run(["mpirun", "-np", "2", *hello], log, remedy, **limit)
    for transport in ["--mpi", "--gloo"]:
        run(["horovodrun", transport, "-np", "2", *python, ALLREDUCE], log, remedy, **limit)
    print(f"proved: horovodrun --check-build; allreduce over 2 ranks by MPI and by Gloo ({log})")


def build_key(mpicxx: Path, settings: Mapping[str, str]) -> Mapping[str, str]:
    """What a build depends on: the same key means that there is nothing to do."""
    import torch

    mpi = subprocess.run([mpicxx, "-show"], capture_output=True, text=True).stdout.strip()
    patches = b"".join(patch.read_bytes() for patch in patching.series(PATCHES))
    return {
        "horovod": f"{VERSION} with patches {hashlib.sha256(patches).hexdigest()}",
        "python": sys.version,
        "torch": torch.__version__,
        "mpi": f"{mpicxx}: {mpi}",
        **{k: v for k, v in settings.items() if k not in ("PATH", "MAKEFLAGS")},
    }


def local_version(with_nccl: bool) -> str:
    """The local part of the wheel's version: ``torch2.14.1.cu130.openmpi5.0.11``."""
    import torch

    cuda = f"cu{torch.version.cuda.replace('.', '')}" if with_nccl else "cpu"
    answer = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"\d+(\.\d+)+", answer)
    mpi = "openmpi" if "Open MPI" in answer or "open-mpi" in answer else "mpich"
    return f"torch{torch.__version__.partition('+')[0]}.{cuda}.{mpi}{release[0] if release else ''}"


def build_wheel(work: Path, log: Path, settings: Mapping[str, str], with_nccl: bool) -> Path:
    """Fetch, patch and build Horovod; return its wheel."""
    source = fetch_source(work, log)
    wheels = work / "wheel"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-build-isolation"]
    command += ["--no-deps", "--no-cache-dir", "--wheel-dir", str(wheels), str(source)]
    remedy = f"the build failed; the first 'error:' in {log} says why"
    if with_nccl:
        remedy += " (HOROVOD_WITHOUT_GPU=1 builds without NCCL)"
    variables = {**os.environ, **settings, "HOROVOD_LOCAL_VERSION": local_version(with_nccl)}
    run(command, log, remedy, env=variables)
    shutil.rmtree(source, ignore_errors=True)
    return next(wheels.glob("*.whl"))


def main() -> None:
    """Build, install and prove, unless the same build is already installed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--log", type=Path, default=Path("horovod-build.log"), help="full log")
    parser.add_argument("--force", action="store_true", help="build even if it is already there")
    parser.add_argument("--wheel", type=Path, metavar="DIR", help="copy the wheel to DIR")
    arguments = parser.parse_args()
    log = arguments.log.resolve()
    record = Path(sysconfig.get_path("data")) / "horovod-build.json"
    try:
        try:
            import torch
        except ModuleNotFoundError:
            raise Failure("this Python has no PyTorch: source .venv/bin/activate first") from None

        work = log.parent / "horovod"
        work.mkdir(parents=True, exist_ok=True)
        mpicxx = mpi_compiler()
        toolkit = cuda_toolkit.find_or_bring(torch.version.cuda, work, log)
        with_nccl = isinstance(toolkit, Path)
        settings = build_settings(work, toolkit)
        key = build_key(mpicxx, settings)
        built = record.exists() and json.loads(record.read_text()) == key
        wheel = next((work / "wheel").glob("*.whl"), None) if built else None
        if built and importlib.util.find_spec("horovod") and not arguments.force:
            print("Horovod is already built for this Python, PyTorch, MPI and CUDA")
            if not arguments.wheel:
                return
        else:
            record.unlink(missing_ok=True)
            log.write_text("")
            print(f"MPI: {mpicxx.parent}")
            if with_nccl:
                print(f"CUDA: {toolkit}; NCCL: {settings['HOROVOD_NCCL_INCLUDE']}")
            else:
                print(without_nccl(toolkit), file=sys.stderr)
            wheel = build_wheel(work, log, settings, with_nccl)
            command = [sys.executable, "-m", "pip", "install", "--no-deps", "--force-reinstall"]
            run([*command, "--no-cache-dir", str(wheel)], log, f"cannot install {wheel}")
            prove(log, with_nccl)
            record.write_text(json.dumps(key, indent=2) + "\n")
        if arguments.wheel:
            wheel = wheel or build_wheel(work, log, settings, with_nccl)
            arguments.wheel.mkdir(parents=True, exist_ok=True)
            print(f"wheel: {shutil.copy(wheel, arguments.wheel)}")
    except Failure as failure:
        print(*failure.printed, sep="\n", file=sys.stderr)
        sys.exit(f"install_horovod: {failure}")
    except KeyboardInterrupt:
        sys.exit("install_horovod: interrupted: run the set-up again to go on")


if __name__ == "__main__":
    main()
