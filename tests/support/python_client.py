"""A ``python`` by python_server.py: ``python -IS python_client.py [FILE | -c … | -m …]``.

Takes signals, and passes them to the process that the server forked; ends as that process ends.
"""

import array
import contextlib
import json
import os
import signal
import socket
import struct
import sys

SIZE = struct.Struct("!Q")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

server = socket.socket(socket.AF_UNIX)
server.connect(os.environ["PYTHON_SERVER"])
umask = os.umask(0o22)
os.umask(umask)
request = json.dumps(
    {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask,
        "pid": os.getpid(),
    }
).encode()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
server.sendmsg([SIZE.pack(len(request))], rights)
server.sendall(request)
(pid,) = SIZE.unpack(server.recv(SIZE.size, socket.MSG_WAITALL))


def pass_on(number: int, frame: object) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


for number in PASSED_ON:
    signal.signal(number, pass_on)
signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
(status,) = SIZE.unpack(server.recv(SIZE.size, socket.MSG_WAITALL))
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(
        status
    ) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
