"""horovodrun: Open MPI 5, signals, exit codes, and a quick start."""

from __future__ import annotations

from horovod_edits.edit import Edit

EDITS = [
    Edit(
        "horovod/runner/mpi_run.py",
        "_NO_BINDING_ARGS = ['-bind-to none', '-map-by slot']",
        "_NO_BINDING_ARGS = ['--bind-to none', '--map-by slot']",
        "Open MPI 5 reads -bind-to as the name of a program; Open MPI 4 takes both spellings",
    ),
    Edit(
        "horovod/runner/mpi_run.py",
        "_SOCKET_BINDING_ARGS = ['-bind-to socket', '-map-by socket', '-rank-by core']",
        "_SOCKET_BINDING_ARGS = ['--bind-to socket', '--map-by socket', '--rank-by core']",
        "the same, for nodes with several sockets",
    ),
    Edit(
        "horovod/runner/mpi_run.py",
        "elif 'MPICH' in output:",
        "elif 'MPICH' in output or 'HYDRA' in output:",
        "MPICH 4's mpirun --version calls itself HYDRA",
    ),
    Edit(
        "horovod/runner/mpi_run.py",
        "['/bin/sh', '-c', mpirun_command]",
        "['/bin/sh', '-c', 'exec ' + mpirun_command]",
        "a signal to horovodrun ended the shell that it turns into, and mpirun and the ranks went "
        "on alone; now mpirun gets it",
    ),
    Edit(
        "horovod/runner/mpi_run.py",
        "'-mca btl ^openib']",
        "'-mca btl ^openib,ofi']",
        "it overrides what a site or tools/setup.sh leaves out, and on a machine without a fabric "
        "Open MPI 5 then looks for one in hvd.init(), for a second",
    ),
    Edit(
        "horovod/runner/common/util/safe_shell_exec.py",
        """\
    for child in p.children():
        try:
            child.terminate()
""",
        """\
    try:
        children = p.children()
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            child.terminate()
""",
        "under Gloo a shell that ends while its children are listed left a traceback",
    ),
    Edit(
        "horovod/runner/common/util/safe_shell_exec.py",
        "psutil.wait_procs(p.children(), ",
        "psutil.wait_procs(children, ",
        "the same, where they are listed again",
    ),
    Edit(
        "horovod/runner/common/util/safe_shell_exec.py",
        "        p.wait(timeout=GRACEFUL_TERMINATION_TIME_S)\n",
        """\
        limit = time.time() + GRACEFUL_TERMINATION_TIME_S
        while p.is_running() and p.status() != psutil.STATUS_ZOMBIE:
            if time.time() > limit:
                raise psutil.TimeoutExpired(GRACEFUL_TERMINATION_TIME_S)
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        pass
""",
        "under Gloo a rank told to end is waited for in two threads, and one takes the exit "
        "code from the other; horovodrun then sometimes ended with 0",
    ),
    Edit(
        "horovod/runner/launch.py",
        "    # keep logic in sync with is_gloo_used(...)\n",
        """\
    # keep logic in sync with is_gloo_used(...)
    mpi_built = gloo_built = lambda verbose: True
""",
        "horovodrun imports PyTorch to learn what it was built with, over a second before anything "
        "starts; this build always has both",
    ),
    Edit(
        "horovod/runner/launch.py",
        "    _run(args)\n\n\nif __name__",
        """\
    try:
        _run(args)
    except RuntimeError as error:
        code = str(error).rpartition('Exit code: ')[2].strip()
        sys.exit(int(code) if code.isdigit() else str(error))


if __name__""",
        "under Gloo a job that fails ends in horovodrun's own traceback, which buries the job's "
        "message; now horovodrun ends with the job's exit code, as mpirun does",
    ),
]
