"""What the service is compared with, as processes: `peers/`, in a virtual environment of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.callbacks import without_proxies
from tests.support.processes import Process

_FOLDER = Path(__file__).parent / "peers"
_PROGRAMS = Path(__file__).parents[2] / ".venv-peers" / "bin"


def peer_command(program: str, *arguments: str) -> Sequence[str]:
    """A program of the peers' virtual environment; `node`, which is not of it, stays as it is."""
    assert _PROGRAMS.is_dir(), "the peers are not installed: `make bench-quick` does it"
    return [program if program == "node" else str(_PROGRAMS / program), *arguments]


def peer_process(name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Process:
    """Not yet started. Runs in the peers' folder; its log goes to `folder`."""
    return Process(
        name=name,
        command=command,
        log_file=folder / f"{name}.log",
        environment={**without_proxies(), **environment},
        directory=_FOLDER,
    )
