"""Everything that is changed in Horovod 0.28.1's source, each with its reason."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """One replacement in Horovod's source; ``old`` must occur exactly once."""

    file: str
    old: str
    new: str
    why: str


EDITS = [
    Edit(
        "CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "PyTorch's headers need C++17 since 2.1 and C++20 since 2.13",
    ),
    Edit(
        "horovod/torch/CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "the same, for the PyTorch binding",
    ),
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
        "horovod/torch/mpi_ops_v2.cc",
        "      std::this_thread::yield();\n",
        "      handle_manager.Wait(handle);\n",
        "a rank that waits for a sum spun, and took its core from Horovod's own thread and from "
        "those that decode images; now it sleeps until it is woken",
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "  bool PollHandle(int handle);\n",
        "  bool PollHandle(int handle);\n  void Wait(int handle);\n",
        "the same: a method that waits",
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "  std::mutex mutex_;\n",
        "  std::mutex mutex_;\n  std::condition_variable done_;\n",
        "the same: what it waits for",
    ),
    Edit(
        "horovod/torch/handle_manager.h",
        "#include <atomic>\n",
        "#include <atomic>\n#include <condition_variable>\n",
        "the same: where that is declared",
    ),
    Edit(
        "horovod/torch/handle_manager.cc",
        """\
  results_[handle] = std::make_shared<Status>(status);
}
""",
        """\
  results_[handle] = std::make_shared<Status>(status);
  done_.notify_all();
}

// Returns when the handle is done, or cleared by Reset.
void HandleManager::Wait(int handle) {
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&] {
    auto found = results_.find(handle);
    return found == results_.end() || found->second != nullptr;
  });
}
""",
        "the same: who wakes it",
    ),
    Edit(
        "horovod/torch/handle_manager.cc",
        "  results_.clear();\n",
        "  results_.clear();\n  done_.notify_all();\n",
        "the same, where an elastic job begins anew",
    ),
    Edit(
        "horovod/runner/js_run.py",
        "from distutils.spawn import find_executable",
        "from shutil import which as find_executable",
        "Python 3.12 has no distutils, and horovodrun imports this file",
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
    Edit(
        "horovod/common/operations.cc",
        """\
    global_gloo_context.Initialize(ParseGlooIface());
""",
        """\
    try {
      global_gloo_context.Initialize(ParseGlooIface());
      if (state.control_operation == LibType::GLOO) {
        state.process_set_table.Initialize(global_gloo_context);
      }
    } catch (const gloo::Exception& ex) {
      LOG(ERROR) << "Horovod could not be initialized: " << ex.what();
      state.process_set_table.Get(0).Finalize(SHUT_DOWN_ERROR);
      global_gloo_context.Finalize();
      state.initialization_failed = true;
      return;
    }
""",
        "a process that is lost while the others rendezvous aborted all of them, so that a broken "
        "new host ended an elastic job; now hvd.init() raises",
    ),
    Edit(
        "horovod/common/operations.cc",
        '#include "gloo/gloo_controller.h"\n',
        '#include "gloo/common/error.h"\n#include "gloo/gloo_controller.h"\n',
        "the same: where Gloo's exceptions are declared",
    ),
    Edit(
        "horovod/common/operations.cc",
        """\
    // Reset initialization flag
""",
        """\
    // Reset initialization flags
    horovod_global.initialization_failed = false;
""",
        "the same: hvd.init() may then be tried again after hvd.shutdown()",
    ),
]
