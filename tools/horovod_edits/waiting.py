"""Who waits sleeps: ranks for their sums, and Horovod's thread for something to sum."""

from __future__ import annotations

from horovod_edits.edit import Edit

EDITS = [
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
]
