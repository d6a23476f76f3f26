"""Standard output for a log: writing returns at once, and one thread passes the lines to the system."""

import io
import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

#: Why a line is lost: the buffer was full, the system refused it, or it could not be rendered.
FULL, UNWRITABLE, UNRENDERABLE = "full", "unwritable", "unrenderable"
#: A line that was written, with escapes for characters that UTF-8 cannot encode.
ESCAPED = "escaped"

_FATES = (FULL, UNWRITABLE, UNRENDERABLE, ESCAPED)

# How long the writer waits for further lines before it writes. Many lines then share one system call and one thread
# switch, so that logging costs its callers little.
_GATHER_SECONDS = 0.02
# The pause after a write that failed, before the stream is tried again.
_RETRY_SECONDS = 1.0
_NEWLINE = b"\n"


class LineCounts:
    """How many log lines were lost or escaped, in this process and in those forked from it.

    The counts are in memory that forks share. Each process has a slot of its own, chosen by its process id, so no lock
    is held over a fork, and each of the processes can report the counts of all. Safe to use from many threads.
    """

    _SLOTS = 1024

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, self._SLOTS * len(_FATES) * 8)).cast("Q")
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def add(self, fate: str, lines: int = 1) -> None:
        """Count `lines` more with this fate, one of this module's constants."""
        slot = os.getpid() % self._SLOTS * len(_FATES) + _FATES.index(fate)
        with self._lock:
            self._memory[slot] += lines

    def lost(self) -> Mapping[str, int]:
        """Lines that were lost, by reason, in all processes together, including those that have ended."""
        return {fate: self._total(fate) for fate in _FATES if fate != ESCAPED}

    def escaped(self) -> int:
        """Lines with characters that had to be escaped, likewise."""
        return self._total(ESCAPED)

    def _total(self, fate: str) -> int:
        return sum(self._memory[_FATES.index(fate) :: len(_FATES)])

    def _renew_lock(self) -> None:
        # Reentrant for the same reason as the lock of `LogStream`.
        self._lock = threading.RLock()


class LogStream(io.TextIOBase):
    """A UTF-8 text stream to a file descriptor that neither waits nor raises.

    The descriptor may be a closed pipe, a pipe that nobody reads, or a file on a full disk. Lines go into a buffer of
    at most `max_bytes` and `max_lines`, and one thread per process passes them to the system. Lines that do not fit
    or that the system refuses are dropped and counted; later lines are tried again. A forked process begins with an
    empty buffer and a thread of its own, because its parent writes what is buffered already.

    Safe to use from many threads, and from signal handlers and finalizers.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        counts: LineCounts,
        on_gap: Callable[[int], None] = lambda _lines: None,
        max_bytes: int = 4 * 1024 * 1024,
        max_lines: int = 20_000,
    ) -> None:
        """`on_gap` gets the number of lost lines once lines can be written again; the writing thread calls it."""
        self._descriptor = descriptor
        self._counts = counts
        self._on_gap = on_gap
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Reentrant: a signal handler or a finalizer may log while the same thread is logging.
        self._lock = threading.RLock()
        self._lines: list[bytes] = []
        # Lines that wait, and those that the writer is writing.
        self._held_lines = self._held_bytes = 0
        self._lost_lines = 0
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        # The only way to wake a thread that a signal handler may use at any moment.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._writing_since: float | None = None
        self._torn = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8, whatever the locale says."""
        return "utf-8"

    def fileno(self) -> int:
        """The descriptor that it writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a person reads it at a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Put a text, preferably a whole line, into the buffer. Never waits, never raises."""
        try:
            line = text.encode()
        except UnicodeEncodeError:
            # A lone surrogate; JSON would write the same escape.
            line = text.encode(errors="backslashreplace")
            self._counts.add(ESCAPED)
        size = len(line)
        with self._lock:
            if self._held_bytes + size > self._max_bytes or self._held_lines >= self._max_lines:
                self._lose(1, FULL)
                return len(text)
            self._lines.append(line)
            self._held_lines += 1
            self._held_bytes += size
            if not self._awake:
                self._wake()
        return len(text)

    def flush(self) -> None:
        """Does nothing: see `drain`."""

    def drain(self, *, timeout_seconds: float) -> bool:
        """Wait until everything written so far is out; says whether it is. For the end of the process.

        It gives up after `timeout_seconds`, or as soon as the system has kept a single write waiting for that long.
        """
        thread = self._thread
        if thread is None:
            return not self._lines
        self._ending.set()
        self._wakes.put(None)
        since = self._writing_since
        began = time.monotonic() if since is None else since
        thread.join(max(0.0, began + timeout_seconds - time.monotonic()))
        return not thread.is_alive()

    def _wake(self) -> None:
        if self._thread is None:
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, args=(self._ending,), name="log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The system has no thread to give, or Python is about to end: the next line tries again.
                self._thread = None
                return
        self._awake = True
        self._wakes.put(None)

    # The writing thread.

    def _run(self, ending: threading.Event) -> None:
        pause = _GATHER_SECONDS
        while not self._over(ending):
            self._wakes.get()
            ending.wait(pause)
            pause = _GATHER_SECONDS if self._write_out() else _RETRY_SECONDS

    def _over(self, ending: threading.Event) -> bool:
        with self._lock:
            if not ending.is_set() or self._lines:
                return False
            self._thread = None  # the next line starts another
            return True

    def _write_out(self) -> bool:
        """Write the waiting lines; says whether the system took all of them."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._awake = False
        size = sum(map(len, lines))
        written = 0
        try:
            for piece in _pieces(lines):
                self._write_all(b"".join(piece))
                written += len(piece)
        except OSError:
            self._lose(len(lines) - written, UNWRITABLE)
        with self._lock:
            self._held_lines -= len(lines)
            self._held_bytes -= size
            gap = 0
            if lines and written == len(lines):
                gap, self._lost_lines = self._lost_lines, 0
        if gap:
            self._on_gap(gap)
        return written == len(lines)

    def _write_all(self, data: bytes) -> None:
        if self._torn:
            # An error cut the line before: what follows must not be read as part of it.
            data = _NEWLINE + data
        left = memoryview(data)
        self._writing_since = time.monotonic()
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    # Another process that shares the stream has made it non-blocking: wait until it takes more.
                    select.select([], [self._descriptor], [])
            self._torn = False
        finally:
            self._torn = self._torn or 0 < len(left) < len(data)
            self._writing_since = None

    def _lose(self, lines: int, why: str) -> None:
        self._counts.add(why, lines)
        with self._lock:
            self._lost_lines += lines


def _pieces(lines: Sequence[bytes]) -> list[list[bytes]]:
    """The lines in groups that a pipe takes at once, so that processes do not write into each other's lines."""
    pieces: list[list[bytes]] = []
    size = select.PIPE_BUF + 1
    for line in lines:
        if size + len(line) > select.PIPE_BUF:
            pieces.append([])
            size = 0
        pieces[-1].append(line)
        size += len(line)
    return pieces
