"""hvd.init() survives a process that is lost while the others meet."""

from __future__ import annotations

from horovod_edits.edit import Edit

EDITS = [
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
