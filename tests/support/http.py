"""Plain HTTP questions to the processes under test."""

import urllib3


def answers(url: str, *, status: int = 200) -> bool:
    """Whether a GET is answered with `status` right now; a refused connection is a no. For `Process.wait_until`."""
    try:
        return urllib3.request("GET", url, timeout=2.0, retries=False).status == status
    except urllib3.exceptions.HTTPError:
        return False
