"""The tables that somebody would make who writes a ledger by hand, and what the peers do in them."""

import os

from sqlalchemy import Engine, create_engine

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    biz_order_no text PRIMARY KEY, status text, pay_order_no text, sequence int DEFAULT 0, updated_at timestamptz
);
CREATE TABLE IF NOT EXISTS claims (
    id bigserial PRIMARY KEY, digest text UNIQUE, biz_order_no text, body jsonb, recorded_at timestamptz DEFAULT now()
);
CREATE TABLE IF NOT EXISTS outbox (
    id bigserial PRIMARY KEY, biz_order_no text, sequence int, body jsonb, delivered_at timestamptz
);
"""


def make_engine() -> Engine:
    """Of the database that DATABASE_URL names, with the tables above."""
    engine = create_engine(os.environ["DATABASE_URL"])
    with engine.begin() as connection:
        connection.exec_driver_sql(TABLES)
    return engine
