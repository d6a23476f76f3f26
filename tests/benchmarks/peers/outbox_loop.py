"""A dispatcher by hand: one thread that takes an event, posts it, and notes that it was delivered. `outbox_loop.py URL`

Runs until it is ended.
"""

import base64
import hmac
import json
import sys
import time

import urllib3
from sqlalchemy import Engine, text
from tables import make_engine

KEY = b"the key of a webhook, for measuring"
TAKE = text("SELECT id, body FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
SETTLE = text("UPDATE outbox SET delivered_at = now() WHERE id = :id")


def main() -> None:
    engine, http = make_engine(), urllib3.PoolManager()
    while True:
        if not deliver_one(engine, http, sys.argv[1]):
            time.sleep(0.25)


def deliver_one(engine: Engine, http: urllib3.PoolManager, url: str) -> bool:
    """Whether there was one."""
    with engine.begin() as connection:
        event = connection.execute(TAKE).first()
        if event is None:
            return False
        body = json.dumps(event.body)
        answer = http.request("POST", url, body=body, headers=signed(f"{event.id}", body))
        if answer.status < 300:
            connection.execute(SETTLE, {"id": event.id})
        return True


def signed(event_id: str, body: str) -> dict[str, str]:
    """The headers of the Standard Webhooks convention."""
    moment = str(int(time.time()))
    mac = hmac.digest(KEY, f"{event_id}.{moment}.{body}".encode(), "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


if __name__ == "__main__":
    main()
