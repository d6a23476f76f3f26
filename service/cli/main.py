"""The command line: `payment-callbacks`."""

import click

from service.cli.lazy_group import LazyCommand, LazyGroup

_COMMANDS = {
    "config": LazyCommand("service.cli.config:config", "Print an example of the settings, or check yours."),
    "dead": LazyCommand("service.cli.dead:dead", "List, show, replay and drop dead letters."),
    "demo": LazyCommand("service.cli.demo:demo", "Run everything against a misbehaving sandbox."),
    "endpoints": LazyCommand("service.cli.endpoints:endpoints", "List, test, pause and resume endpoints."),
    "gateway": LazyCommand("service.cli.gateway:gateway", "Speak to a merchant's gateway by hand."),
    "keys": LazyCommand("service.cli.keys:keys", "Make keys."),
    "migrate": LazyCommand("service.cli.migrate:migrate", "Bring the database to this release's schema."),
    "orders": LazyCommand("service.cli.orders:orders", "Announce, list, show, ask about and resolve orders."),
    "prune": LazyCommand("service.cli.prune:prune", "Remove old payloads, which hold personal data."),
    "replay": LazyCommand("service.cli.replay:replay", "Send events to an endpoint again."),
    "report": LazyCommand("service.cli.report:report", "Report how complete a day was."),
    "run": LazyCommand("service.cli.run:run", "Run a role, or all of them."),
    "sandbox": LazyCommand("service.cli.sandbox:sandbox", "Run a gateway to test against."),
    "schemas": LazyCommand("service.cli.schemas:schemas", "Write the contracts of events."),
    "sign": LazyCommand("service.cli.sign:sign", "See why the sign of a callback does not fit."),
    "spool": LazyCommand("service.cli.spool:spool", "Wait until a spool is empty."),
    "topology": LazyCommand("service.cli.topology:topology", "Declare exchanges and queues on RabbitMQ."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "settings_path",
    type=click.Path(dir_okay=False),
    envvar="PAYMENT_CALLBACKS_CONFIG",
    default="payment-callbacks.toml",
    show_default=True,
    show_envvar=True,
    help="The settings, in TOML. `payment-callbacks config example` prints a first one.",
)
@click.version_option(package_name="payment-callbacks")
@click.pass_context
def main(context: click.Context, settings_path: str) -> None:
    """Take a payment gateway's callbacks in, and hand exactly one status change on."""
    context.obj = settings_path
