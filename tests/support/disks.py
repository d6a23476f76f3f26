"""A small disk: a file system in a file, which can be full, read-only, or broken. As root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


class Disk:
    """Use it as a context manager. `path` is a folder that everybody may enter and write to."""

    def __init__(self, *, mebibytes: int = 24) -> None:
        self._mebibytes = mebibytes
        self._folder = Path(tempfile.mkdtemp(prefix="payment-callbacks-disk-"))
        self.path = self._folder / "disk"
        self._memory = self._folder / "memory"
        self._image = self._memory / "image"
        self._filler = self.path / "filler"
        self._memory_filler = self._memory / "filler"
        self._device: Path | None = None

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            shutil.rmtree(self._folder)
            pytest.skip("only root can mount the small disk that this test fills and breaks")
        self._folder.chmod(0o755)
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def fill(self) -> None:
        """Leave no room for anything new."""
        _fill(self._filler)

    def make_read_only(self) -> None:
        """Nothing on it may be open for writing: the kernel refuses it then."""
        _run("mount", "-o", "remount,ro", self.path)

    def sync(self) -> None:
        """Write everything to it now, as the kernel does within half a minute."""
        _run("sync", "--file-system", self.path)

    def break_down(self) -> None:
        """From now on writes succeed and syncs fail, as far as they need blocks that no file has yet."""
        self.sync()
        _run("fstrim", self.path)
        _fill(self._memory_filler)

    def mend(self) -> None:
        """End every fault."""
        _run("mount", "-o", "remount,rw", self.path)
        self._filler.unlink(missing_ok=True)
        self._memory_filler.unlink(missing_ok=True)

    def cut_power(self, end_users: Callable[[], None]) -> None:
        """Lose all that has not reached it. Whoever uses it must stand still, and is ended by `end_users`."""
        copy = self._memory / "copy"
        shutil.copyfile(self._image, copy)
        end_users()
        # A process that was killed may hold a file for another moment.
        eventually(lambda: subprocess.run(["umount", self.path], capture_output=True, check=False).returncode == 0)
        assert self._device is not None, "it is not mounted"
        _run("losetup", "--detach", self._device)
        copy.replace(self._image)
        self._attach()

    def users(self) -> list[int]:
        """The process ids of those that have a file on it open."""
        found = set()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):  # it has ended
                if link.readlink().is_relative_to(self.path):
                    found.add(int(link.parts[2]))
        return sorted(found)

    @contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """What would be on the disk if the power was cut now: only what has reached it."""
        copy, folder = self._memory / "copy", self._folder / "copy"
        shutil.copyfile(self._image, copy)
        folder.mkdir()
        _run("mount", "-o", "loop", copy, folder)
        try:
            yield folder
        finally:
            _run("umount", folder)
            folder.rmdir()
            copy.unlink()

    def _make(self) -> None:
        self.path.mkdir()
        self._memory.mkdir()
        # For the image, a copy of it, and a little more.
        _run("mount", "-t", "tmpfs", "-o", f"size={2 * self._mebibytes + 8}m", "tmpfs", self._memory)
        with self._image.open("wb") as image:
            image.truncate(self._mebibytes * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-m", "0", "-N", f"{85 * self._mebibytes}", self._image)
        # All of it takes room now, the journal above all: only files must lack it when the disk breaks down.
        self._image.write_bytes(self._image.read_bytes())
        self._attach()
        self.path.chmod(0o777)

    def _attach(self) -> None:
        self._device = Path(_run("losetup", "--find", "--show", self._image).strip())
        # A loop device reports a write that was done in part as done. No part is smaller than this.
        Path(f"/sys/block/{self._device.name}/queue/max_sectors_kb").write_text("4")
        _run("mount", "-o", "errors=continue", self._device, self.path)

    def _remove(self) -> None:
        for folder in (self.path, self._memory):
            # Lazily: a process that was killed may hold a file for another moment.
            subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)
            if folder == self.path and self._device is not None:
                # As soon as nothing uses it.
                subprocess.run(["losetup", "--detach", self._device], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def _fill(file: Path) -> None:
    for size in (1024 * 1024, 4096, 4096):  # closing a file gives back the room that was reserved for its growth
        with suppress(OSError), file.open("ab", buffering=0) as filler:
            while True:
                filler.write(b"\0" * size)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS, check=False)
    assert done.returncode == 0, f"{command} failed: {done.stderr}"
    return done.stdout
