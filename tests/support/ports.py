"""Free TCP ports for private servers."""

import random
import socket

# Below the range from which the kernel takes the ports of outgoing connections: a server that is down must find its own
# port free when it comes back, and a client that keeps trying it must not by chance connect to itself.
_FIRST, _LAST = 18_000, 32_000


def find_free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on. It is not reserved: start what needs it soon."""
    for _ in range(200):
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")
