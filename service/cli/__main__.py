"""Where the process begins: `payment-callbacks`, and `python -m service.cli`."""

import errno
import io
import os
import sys
from typing import TextIO

# By these a library would change what the settings say, or end the process: gunicorn's listening sockets, workers and
# believed proxies, the path below which it thinks that it is mounted, Flask's debug mode, and the folder in which
# prometheus_client then wants every process to keep its counts.
_FOREIGN_VARIABLES = (
    "FLASK_DEBUG",
    "FORWARDED_ALLOW_IPS",
    "GUNICORN_FD",
    "GUNICORN_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "PROMETHEUS_MULTIPROC_DIR",
    "SCRIPT_NAME",
    "prometheus_multiproc_dir",
)
# Read by gunicorn when it is imported, which fails unless it is a number. A number does no harm: the settings win.
_NUMBER_FOR_GUNICORN = "WEB_CONCURRENCY"
# Of a file or pipe that cannot be written, and of no other file that a command works on.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def main() -> None:
    """Run the command line. Never returns: it ends the process (SystemExit)."""
    _open_standard_streams()
    for name in _FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    if not os.environ.get(_NUMBER_FOR_GUNICORN, "0").isdecimal():
        del os.environ[_NUMBER_FOR_GUNICORN]
    from service.cli.main import main as command_line  # after the environment, which libraries read at their import

    try:
        try:
            command_line()
        finally:
            sys.stdout.flush()
    except OSError as error:
        _end_unwritten(error)


def _open_standard_streams() -> None:
    """Make all three of them usable: some parents close them, and few terminals are asked for their encoding."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, the database perhaps, would be taken for this stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _in_utf8(sys.stdout, 1)
    sys.stderr = _in_utf8(sys.stderr, 2)


def _in_utf8(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        stream = open(descriptor, "w")  # noqa: SIM115 - it stays open
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def _end_unwritten(error: OSError) -> None:
    """End with 1 where the output could not be written: quietly where nobody reads it any more, else with a word."""
    # What is still buffered would fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        sys.exit(1)
    if error.filename is None and error.errno in _UNWRITABLE:
        sys.exit(f"Error: the output cannot be written: {error.strerror}")
    raise error


if __name__ == "__main__":
    main()
