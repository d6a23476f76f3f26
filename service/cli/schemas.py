"""`payment-callbacks schemas`: write the contracts of events."""

import json
from pathlib import Path

import click

from service.contracts.asyncapi import describe_channels
from service.contracts.json_schema import describe_event
from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE, UNROUTED_STATUS


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, writable=True, path_type=Path))
def schemas(folder: Path) -> None:
    """Write the contracts of events into FOLDER: an AsyncAPI 3.0 document, and the events' JSON Schema.

    Use them to generate code and to check messages in tests, without a running service. `run api` serves the same.
    """
    documents = {
        ASYNCAPI: describe_channels(exchange=STATUS_EXCHANGE, alternate_exchange=UNROUTED_STATUS),
        PAYMENT_EVENT: describe_event(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (folder / name).write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            click.echo(folder / name)
    except OSError as error:
        raise click.ClickException(f"{folder}: cannot be written: {error}") from error
