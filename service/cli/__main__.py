"""The entry point of `payment-callbacks` and `python -m service.cli`."""

import errno
import gc
import io
import os
import sys
from typing import TextIO

# Libraries read these variables, which would override the settings or end the process: gunicorn's listening sockets,
# workers, trusted proxies and mount path, Flask's debug mode, and the folder of prometheus_client's multiprocess mode.
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
# gunicorn reads it when it is imported, and fails unless it is a number. The settings override a number.
_NUMBER_FOR_GUNICORN = "WEB_CONCURRENCY"
# Errors of writing to a file or pipe; other files of a command do not raise them.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
# New objects between two searches for unreachable cycles. With Python's 700, searching what imports make, which all
# stays, takes a fifth of a role's start.
_OBJECTS_PER_COLLECTION = 20_000


def main() -> None:
    """Run the command line. Never returns: it ends the process (SystemExit)."""
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    _open_standard_streams()
    for name in _FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    if not os.environ.get(_NUMBER_FOR_GUNICORN, "0").isdecimal():
        del os.environ[_NUMBER_FOR_GUNICORN]
    from service.cli.main import main as command_line  # libraries read the environment when they are imported

    try:
        try:
            command_line()
        finally:
            sys.stdout.flush()
    except OSError as error:
        _end_without_output(error)


def _open_standard_streams() -> None:
    """Open those that the parent process has closed, and write UTF-8."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened, such as the database, would become this stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _in_utf8(sys.stdout, 1)
    sys.stderr = _in_utf8(sys.stderr, 2)


def _in_utf8(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        stream = open(descriptor, "w")  # noqa: SIM115 - it stays open
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def _end_without_output(error: OSError) -> None:
    """End with 1 because the output cannot be written: silently if its reader is gone, else with an error."""
    # Otherwise what is still buffered would fail again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        sys.exit(1)
    if error.filename is None and error.errno in _UNWRITABLE:
        sys.exit(f"Error: the output cannot be written: {error.strerror}")
    raise error


if __name__ == "__main__":
    main()
