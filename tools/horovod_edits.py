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
        "horovod/common/ops/collective_operations.cc",
        """\
void AllreduceOp::MemcpyInFusionBuffer(
    const std::vector<TensorTableEntry>& entries, const void*& fused_input_data,
    void*& buffer_data, size_t& buffer_len) {
""",
        """\
namespace {

// Whether each tensor is summed in place and begins where the one before ends.
bool SideBySide(const std::vector<TensorTableEntry>& entries) {
  auto end = (const uint8_t*)entries[0].tensor->data();
  for (auto& e : entries) {
    if (e.tensor->data() != end || e.output->data() != end) {
      return false;
    }
    end += e.tensor->size();
  }
  return true;
}

} // namespace

void AllreduceOp::MemcpyInFusionBuffer(
    const std::vector<TensorTableEntry>& entries, const void*& fused_input_data,
    void*& buffer_data, size_t& buffer_len) {
  if (SideBySide(entries)) {
    fused_input_data = entries[0].tensor->data();
    buffer_data = (void*)entries[0].output->data();
    buffer_len = 0;
    for (auto& e : entries) {
      buffer_len += e.tensor->size();
    }
    return;
  }
""",
        "tensors of a CPU that lie side by side in memory are summed where they are, without being "
        "copied to Horovod's own buffer and back",
    ),
    Edit(
        "horovod/common/ops/collective_operations.cc",
        """\
void AllreduceOp::MemcpyOutFusionBuffer(
    const void* buffer_data, std::vector<TensorTableEntry>& entries) {
  int64_t offset = 0;
""",
        """\
void AllreduceOp::MemcpyOutFusionBuffer(
    const void* buffer_data, std::vector<TensorTableEntry>& entries) {
  if (buffer_data == entries[0].output->data()) {
    return;
  }
  int64_t offset = 0;
""",
        "the same: nothing to copy back",
    ),
    Edit(
        "horovod/common/tensor_queue.h",
        "#include <iostream>\n",
        "#include <chrono>\n#include <condition_variable>\n#include <iostream>\n",
        "Horovod's thread looks every millisecond whether there is something to sum, and every "
        "look is a round of messages among all ranks, for which MPI polls; with "
        "HOROVOD_SLEEP_WHEN_IDLE=1 it sleeps until there is",
    ),
    Edit(
        "horovod/common/tensor_queue.h",
        "  void RemoveJoinTensor();\n",
        """\
  void RemoveJoinTensor();

  // Returns whether there is a tensor, as soon as there is one.
  bool WaitForTensor(std::chrono::milliseconds limit);
""",
        "the same: a method that waits",
    ),
    Edit(
        "horovod/common/tensor_queue.h",
        "  mutable std::mutex mutex_;\n",
        "  mutable std::mutex mutex_;\n\n  std::condition_variable added_;\n",
        "the same: what it waits for",
    ),
    Edit(
        "horovod/common/tensor_queue.cc",
        """\
  message_queue_.push(std::move(message));
  return Status::OK();
}
""",
        """\
  message_queue_.push(std::move(message));
  added_.notify_all();
  return Status::OK();
}

bool TensorQueue::WaitForTensor(std::chrono::milliseconds limit) {
  std::unique_lock<std::mutex> lock(mutex_);
  return added_.wait_for(lock, limit, [&] { return !tensor_table_.empty(); });
}
""",
        "the same: who wakes it",
    ),
    Edit(
        "horovod/common/tensor_queue.cc",
        """\
    message_queue_.push(std::move(messages[i]));
  }
""",
        """\
    message_queue_.push(std::move(messages[i]));
  }
  added_.notify_all();
""",
        "the same, where a group of tensors is handed in",
    ),
    Edit(
        "horovod/common/operations.cc",
        """\
bool RunLoopOnce(HorovodGlobalState& state) {
""",
        """\
bool RunLoopOnce(HorovodGlobalState& state) {
  static const bool sleeps =
      GetBoolEnvOrDefault("HOROVOD_SLEEP_WHEN_IDLE", false);
  if (sleeps && state.process_set_table.Ids().size() == 1) {
    // A round a second all the same: one finds ranks that wait for others.
    auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (!state.shut_down && std::chrono::steady_clock::now() < limit &&
           !state.process_set_table.Get(0).tensor_queue.WaitForTensor(
               std::chrono::milliseconds(20))) {
    }
  }
""",
        "the same: where it sleeps",
    ),
    Edit(
        "horovod/common/mpi/mpi_controller.cc",
        """\
  int ret_code = MPI_Allreduce(MPI_IN_PLACE, bitvector.data(), count,
                               MPI_LONG_LONG_INT, MPI_BAND, mpi_ctx_.mpi_comm);
""",
        """\
  if (SleepsWhenIdle()) {
    MPI_Request all_here;
    MPI_Ibarrier(mpi_ctx_.mpi_comm, &all_here);
    WaitAsleep(all_here, std::chrono::microseconds(200));
  }
  int ret_code = MPI_Allreduce(MPI_IN_PLACE, bitvector.data(), count,
                               MPI_LONG_LONG_INT, MPI_BAND, mpi_ctx_.mpi_comm);
""",
        "the same: each round of messages begins here, and the last rank is waited for asleep",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.h",
        "struct MPIContext {\n",
        """\
// Whether HOROVOD_SLEEP_WHEN_IDLE=1.
bool SleepsWhenIdle();

// MPI_Wait that does not poll: it sleeps for a quarter of what it has waited, at
// most for longest, and looks again.
int WaitAsleep(MPI_Request& request, std::chrono::microseconds longest);

struct MPIContext {
""",
        "the same: how MPI waits asleep",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.h",
        "#include <iostream>\n",
        "#include <chrono>\n#include <iostream>\n",
        "the same: where time is declared",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        """\
MPI_Datatype MPIContext::GetMPIDataType(const std::shared_ptr<Tensor> tensor) const {
""",
        """\
bool SleepsWhenIdle() {
  static const bool sleeps =
      GetBoolEnvOrDefault("HOROVOD_SLEEP_WHEN_IDLE", false);
  return sleeps;
}

int WaitAsleep(MPI_Request& request, std::chrono::microseconds longest) {
  auto began = std::chrono::steady_clock::now();
  while (true) {
    int done = 0;
    int error = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done || error != MPI_SUCCESS) {
      return error;
    }
    auto waited = std::chrono::steady_clock::now() - began;
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(waited / 4, longest));
  }
}

MPI_Datatype MPIContext::GetMPIDataType(const std::shared_ptr<Tensor> tensor) const {
""",
        "the same: how it is done",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        """\
#include <memory>
#include <vector>

#include "../common.h"
#include "../half.h"
#include "../logging.h"
""",
        """\
#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "../common.h"
#include "../half.h"
#include "../logging.h"
#include "../utils/env_parser.h"
""",
        "the same: where threads and the environment are declared",
    ),
    Edit(
        "horovod/common/ops/collective_operations.cc",
        "    std::this_thread::sleep_for(std::chrono::nanoseconds(100));\n",
        """\
    if (!waiting_tensors.empty()) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(100));
    }
""",
        "each sum slept once, for 70 µs with Linux's timers, also where its data was there",
    ),
    Edit(
        "horovod/common/ops/mpi_operations.cc",
        """\
  int op =
      MPI_Allreduce(sendbuf, buffer_data, (int)num_elements,
                    mpi_context.GetMPIDataType(first_entry.tensor),
                    mpiOp,
                    mpi_context.GetMPICommunicator(Communicator::GLOBAL));
""",
        """\
  // On one node in pieces that stay in the caches, over a network as a whole.
  auto type = mpi_context.GetMPIDataType(first_entry.tensor);
  auto comm = mpi_context.GetMPICommunicator(Communicator::GLOBAL);
  bool one_node = process_set.controller->GetLocalSize() ==
                  process_set.controller->GetSize();
  int type_size = 1;
  MPI_Type_size(type, &type_size);
  int64_t piece = one_node ? (4 << 20) / type_size : num_elements;
  int op = MPI_SUCCESS;
  for (int64_t at = 0; at < num_elements && op == MPI_SUCCESS; at += piece) {
    int64_t offset = at * type_size;
    auto input =
        sendbuf == MPI_IN_PLACE ? sendbuf : (const uint8_t*)sendbuf + offset;
    auto output = (uint8_t*)buffer_data + offset;
    int count = (int)std::min(piece, num_elements - at);
    if (one_node || !SleepsWhenIdle()) {
      op = MPI_Allreduce(input, output, count, type, mpiOp, comm);
    } else {
      MPI_Request request;
      op = MPI_Iallreduce(input, output, count, type, mpiOp, comm, &request);
      if (op == MPI_SUCCESS) {
        op = WaitAsleep(request, std::chrono::microseconds(50));
      }
    }
  }
""",
        "Open MPI sums ResNet-50's 102 MB on 2 ranks of a node three times as fast in pieces; "
        "between nodes, with HOROVOD_SLEEP_WHEN_IDLE=1, it sleeps while bytes travel",
    ),
    Edit(
        "horovod/common/ops/mpi_operations.cc",
        '#include "mpi_operations.h"\n',
        '#include "mpi_operations.h"\n\n#include <algorithm>\n',
        "the same: where std::min is declared",
    ),
    Edit(
        "horovod/common/message.h",
        "  HOROVOD_BOOL = 9,\n",
        "  HOROVOD_BOOL = 9,\n  HOROVOD_BFLOAT16 = 10,\n",
        "bfloat16 could not be summed",
    ),
    Edit(
        "horovod/common/message.cc",
        """\
      return bool_;
""",
        """\
      return bool_;
    case HOROVOD_BFLOAT16:
      static const std::string bfloat16("bfloat16");
      return bfloat16;
""",
        "the same: its name",
    ),
    Edit(
        "horovod/common/message.cc",
        "    case HOROVOD_FLOAT16:\n      return 2;\n",
        "    case HOROVOD_FLOAT16:\n    case HOROVOD_BFLOAT16:\n      return 2;\n",
        "the same: its bytes",
    ),
    Edit(
        "horovod/common/half.h",
        "#include <stdint.h>\n",
        """\
#include <stdint.h>
#include <string.h>

// The upper half of a float, rounded to the nearest, ties to even.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  BFloat16(float value) {
    uint32_t whole;
    memcpy(&whole, &value, sizeof(whole));
    if (value != value) {
      whole |= 0x400000; // not a number, also without the lower half
    } else {
      whole += 0x7fff + ((whole >> 16) & 1);
    }
    bits = whole >> 16;
  }
  operator float() const {
    uint32_t whole = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &whole, sizeof(value));
    return value;
  }
};
""",
        "the same: how it is computed with",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  case HOROVOD_FLOAT16:\n    return mpi_float16_t;\n",
        """\
  case HOROVOD_FLOAT16:
    return mpi_float16_t;
  case HOROVOD_BFLOAT16:
    return MPI_UINT16_T;
""",
        "the same: how MPI sends it",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        """\
MPI_Op MPIContext::GetMPISumOp(DataType dtype) const {
  return dtype""",
        """\
namespace {

// Combine what arrives with what is there, with what is there in place.
template <float combine(float, float)> MPI_Op BFloat16Op() {
  static const MPI_Op op = [] {
    MPI_Op made;
    MPI_Op_create(
        [](void* arrived, void* there, int* count, MPI_Datatype*) {
          auto from = (const BFloat16*)arrived;
          auto to = (BFloat16*)there;
          for (int i = 0; i < *count; ++i) {
            to[i] = combine(from[i], to[i]);
          }
        },
        1, &made);
    return made;
  }();
  return op;
}

float Add(float a, float b) { return a + b; }
float Least(float a, float b) { return b < a ? b : a; }
float Most(float a, float b) { return a < b ? b : a; }
float Times(float a, float b) { return a * b; }

} // namespace

MPI_Op MPIContext::GetMPISumOp(DataType dtype) const {
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Add>()
         : dtype""",
        "the same: how MPI sums it",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_min",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Least>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_min""",
        "the same: the least",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_max",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Most>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_max""",
        "the same: the most",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_prod",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Times>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_prod""",
        "the same: the product",
    ),
    Edit(
        "horovod/common/ops/gloo_operations.cc",
        "  case HOROVOD_FLOAT32:\n",
        """\
  case HOROVOD_BFLOAT16:
    return new GlooAlgorithms<BFloat16>(gloo_context);
  case HOROVOD_FLOAT32:
""",
        "the same, by Gloo",
    ),
    Edit(
        "horovod/common/ops/gloo_operations.cc",
        '#include "../global_state.h"\n',
        '#include "../global_state.h"\n#include "../half.h"\n',
        "the same: where it is declared",
    ),
    Edit(
        "horovod/common/ops/nccl_operations.cc",
        "    return ncclFloat16;\n",
        "    return ncclFloat16;\n  case HOROVOD_BFLOAT16:\n    return ncclBfloat16;\n",
        "the same, by NCCL",
    ),
    Edit(
        "horovod/torch/adapter_v2.cc",
        "  case common::HOROVOD_FLOAT16:\n    return ::torch::kHalf;\n",
        """\
  case common::HOROVOD_FLOAT16:
    return ::torch::kHalf;
  case common::HOROVOD_BFLOAT16:
    return ::torch::kBFloat16;
""",
        "the same: what PyTorch calls it",
    ),
    Edit(
        "horovod/torch/adapter_v2.cc",
        "  case ::torch::kHalf:\n    return common::HOROVOD_FLOAT16;\n",
        """\
  case ::torch::kHalf:
    return common::HOROVOD_FLOAT16;
  case ::torch::kBFloat16:
    return common::HOROVOD_BFLOAT16;
""",
        "the same, the other way",
    ),
    Edit(
        "horovod/torch/mpi_ops_v2.cc",
        """\
PYBIND11_MODULE(mpi_lib_v2, m) {
  // allreduce
""",
        """\
PYBIND11_MODULE(mpi_lib_v2, m) {
  // allreduce
  m.def("horovod_torch_allreduce_async_torch_BFloat16Tensor", &DoAllreduce);
  m.def("horovod_torch_grouped_allreduce_async_torch_BFloat16Tensor",
        &DoGroupedAllreduce);
#if HOROVOD_GPU_ALLREDUCE
  m.def("horovod_torch_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoAllreduce);
  m.def("horovod_torch_grouped_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoGroupedAllreduce);
#else
  m.def("horovod_torch_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoAllreduceCudaOnCPU);
  m.def("horovod_torch_grouped_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoGroupedAllreduceCudaOnCPU);
#endif
""",
        "the same: what Python calls",
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
