"""A Python that has already imported what takes long, for tests that start many processes.

`python warm.py SOCKET` imports and waits; `python warm.py SOCKET ARGUMENTS` is then as `python ARGUMENTS` (a script,
`-m` or `-c`) in a process forked from it, with the caller's folder, environment and open files. Signals reach that
process, and it does not outlive its caller.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys

FORWARDED = signal.SIGTERM, signal.SIGINT


def serve(path: str) -> None:
    """Import, then fork for whoever asks."""
    import bd_diff.evaluation.evaluate
    import bd_diff.restore
    import bd_diff.training.joint  # noqa: F401

    gc.freeze()  # what is imported is not looked at again, at the end of each process either
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen(16)
        while True:
            connection, _ = server.accept()
            if not os.fork():
                return answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Run what one caller asks for in a process of its own, and give the caller its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, files, *_ = socket.recv_fds(connection, 2**20, 3)
    if not (child := os.fork()):
        connection.close()
        return run(files, *json.loads(asked))
    ended = os.pidfd_open(child)
    while ended not in select.select([connection, ended], [], [])[0]:
        number = connection.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)
        if not number:
            os._exit(0)
    connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def run(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """What `python` does with these arguments."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    first, *rest = arguments
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(first))
        runpy.run_path(first, run_name="__main__")


def ask(path: str, arguments: list[str]) -> int:
    """Have the arguments run, and return the exit status; it is negative after a signal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        for number in FORWARDED:
            signal.signal(number, lambda number, _: connection.send(bytes([number])) and None)
        socket.send_fds(connection, [json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
        return int(connection.recv(16))


if __name__ == "__main__":
    if not sys.argv[2:]:
        serve(sys.argv[1])
    elif (status := ask(sys.argv[1], sys.argv[2:])) >= 0:
        sys.exit(status)
    else:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
