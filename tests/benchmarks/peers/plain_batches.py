"""The limit of the database: callbacks in batches of arrays into three tables, without a queue and without a decision.

`plain_batches.py CALLBACKS` prints how many it wrote, in how many seconds, and with how many of CPU.
"""

import hashlib
import json
import sys
import time

from psycopg import Connection
from tables import make_engine

BATCH = 500


def main() -> None:
    batches = max(1, int(sys.argv[1]) // BATCH)
    with make_engine().connect() as pooled:
        connection = pooled.connection.driver_connection
        began, cpu_began = time.perf_counter(), time.process_time()
        for number in range(batches):
            record(connection, [a_callback(number * BATCH + place) for place in range(BATCH)])
        print(batches * BATCH, time.perf_counter() - began, time.process_time() - cpu_began)


def record(connection: Connection, callbacks: list[dict[str, str]]) -> None:
    bodies = [json.dumps(callback) for callback in callbacks]
    digests = [hashlib.sha256(body.encode()).hexdigest() for body in bodies]
    order_numbers = [callback["biz_order_no"] for callback in callbacks]
    pay_order_numbers = [callback["pay_order_no"] for callback in callbacks]
    connection.execute(
        "INSERT INTO claims (digest, biz_order_no, body) SELECT * FROM unnest(%s::text[], %s::text[], %s::jsonb[])"
        " ON CONFLICT DO NOTHING",
        (digests, order_numbers, bodies),
    )
    connection.execute(
        "INSERT INTO orders SELECT biz_order_no, 'success', pay_order_no, 1, now()"
        " FROM unnest(%s::text[], %s::text[]) AS new (biz_order_no, pay_order_no) ON CONFLICT DO NOTHING",
        (order_numbers, pay_order_numbers),
    )
    connection.execute(
        "INSERT INTO outbox (biz_order_no, sequence, body) SELECT biz_order_no, 1, body"
        " FROM unnest(%s::text[], %s::jsonb[]) AS new (biz_order_no, body)",
        (order_numbers, bodies),
    )
    connection.commit()


def a_callback(number: int) -> dict[str, str]:
    return {
        "biz_order_no": f"limit-{number:010}",
        "pay_order_no": f"PAY-limit-{number:010}",
        "order_type": "single_withhold",
        "pay_type": "baofoo_001",
        "pay_status": "success",
        "pay_time": "2026-07-01 12:00:00",
        "channel_response": "交易成功",
    }


if __name__ == "__main__":
    main()
