import os
from pathlib import Path

from service.receiver.server import MetricsDirectory


def forked_and_killed(parent: Path) -> None:
    """A process that makes a directory and ends without cleaning up."""
    if not (pid := os.fork()):
        MetricsDirectory(parent=parent)
        os._exit(0)
    os.waitpid(pid, 0)


def test_it_is_new_and_gone_after_removal(tmp_path: Path) -> None:
    first, second = MetricsDirectory(parent=tmp_path), MetricsDirectory(parent=tmp_path)
    assert first.path != second.path
    first.remove()
    first.remove()
    assert not first.path.exists()
    assert second.path.exists()


def test_what_a_killed_receiver_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    forked_and_killed(tmp_path)
    (left,) = tmp_path.iterdir()
    made = MetricsDirectory(parent=tmp_path)
    assert not left.exists()
    assert list(tmp_path.iterdir()) == [made.path]


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    in_use = MetricsDirectory(parent=tmp_path)
    forked_and_killed(tmp_path)
    assert in_use.path.exists()
