"""Which files of the service a process calls while a leg of a callback's path is recorded.

`python -m tests.support.call_trace FOLDER ARGUMENTS...` runs `payment-callbacks ARGUMENTS...` under the trace.
"""

import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_REPOSITORY = Path(__file__).parents[2]
# Not `service/cli`: it only starts the roles. Logging is left out too, since any file may log.
_TRACED = tuple(f"{_REPOSITORY}/{package}/" for package in ("service", "consumers"))
_UNTRACED = tuple(f"{_REPOSITORY}/{start}" for start in ("service/cli/", "service/runtime/log"))


class CallTrace:
    """Writes the name of each file that is called to `folder`, once per leg and thread. Processes may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        switch = folder / "leg"
        if not switch.exists():
            switch.write_bytes(b"\0")
        with switch.open("r+b") as file:
            # The number of the leg that is recorded, for all processes; 0 for none.
            self._leg = mmap.mmap(file.fileno(), 1)
        self._calls = folder / "calls"
        self._output = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: set[tuple[int, int, str]] = set()

    def start(self) -> None:
        """Trace the calling thread, its forks, and the threads that they start from now on."""
        self.trace_new_threads()
        sys.setprofile(self._note)

    def trace_new_threads(self) -> None:
        """Trace the threads that are started from now on, but not the calling one."""
        threading.setprofile(self._note)

    @contextmanager
    def recording(self, leg: int) -> Iterator[None]:
        """Record one leg of the path. `leg` is 1 or more."""
        self._leg[0] = leg
        try:
            yield
        finally:
            self._leg[0] = 0

    def files(self, leg: int) -> list[str]:
        """The files that were called during `leg`, relative to the repository, in the order of their first calls.

        Thread by thread, since the order between threads is a matter of chance.
        """
        threads: dict[str, list[str]] = {}
        for line in self._calls.read_text().splitlines():
            number, thread, name = line.split(" ", 2)
            if int(number) == leg:
                threads.setdefault(thread, []).append(name)
        return list(dict.fromkeys(name for names in threads.values() for name in names))

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        leg = self._leg[0]
        if not leg or event != "call":
            return
        name, thread = frame.f_code.co_filename, threading.get_ident()
        if (leg, thread, name) in self._seen or not name.startswith(_TRACED) or name.startswith(_UNTRACED):
            return
        if frame.f_code.co_name == "<module>":  # an import is not a call
            return
        self._seen.add((leg, thread, name))
        os.write(self._output, f"{leg} {thread} {Path(name).relative_to(_REPOSITORY)}\n".encode())


def main() -> None:
    from service.cli.__main__ import main as run_command

    trace = CallTrace(Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    trace.start()
    run_command()


if __name__ == "__main__":
    main()
