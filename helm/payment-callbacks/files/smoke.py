"""What `helm test` runs in the cluster: ready receivers, strangers refused, an API and a console that answer."""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 10


def status_of(url, *, body=None):
    """The status of a GET, or of a POST where there is a body; why there is none where nobody answers."""
    try:
        with urllib.request.urlopen(url, data=body, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return error


receiver = os.environ["RECEIVER_URL"]
checks = [
    ("the receiver is ready", status_of(f"{receiver}/readyz"), 200),
    ("an unsigned callback is refused", status_of(f"{receiver}/notify/nobody", body=b"{}"), 400),
]
if api := os.environ.get("API_URL"):
    checks += [
        ("the API is ready", status_of(f"{api}/readyz"), 200),
        ("the API refuses strangers", status_of(f"{api}/v1/orders"), 401),
    ]
if console := os.environ.get("CONSOLE_URL"):
    checks.append(("the console is ready", status_of(f"{console}/readyz"), 200))
for what, found, wanted in checks:
    print(f"{'ok' if found == wanted else 'FAILED'}: {what} ({found})")  # noqa: T201
sys.exit(any(found != wanted for _, found, wanted in checks))
