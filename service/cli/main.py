"""The command line: `payment-callbacks`. A command is imported when it is run, so that `--help` is quick."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from service.bootstrap.files import DataDirectoryUnusable


class LazyCommand(NamedTuple):
    """Where a command is defined, and its line in the help of its group."""

    #: `module:name`.
    target: str
    #: The first sentence of the command's own help.
    summary: str


class LazyGroup(click.Group):
    """A group that imports a command when it is used: `--help` must not import everything."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Any of them may be the first to need the data directory."""
        try:
            return super().invoke(ctx)
        except DataDirectoryUnusable as error:
            raise click.ClickException(str(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, sorted."""
        return sorted({*self._lazy, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None if there is no such command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line per command, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name].summary) for name in sorted(self._lazy)])


_COMMANDS = {
    "audit": LazyCommand("service.cli.audit:audit", "List what operators have changed and decided."),
    "config": LazyCommand("service.cli.config:config", "Print an example of the settings, or check yours."),
    "dead": LazyCommand("service.cli.dead:dead", "List, show, replay and drop dead letters."),
    "deliveries": LazyCommand("service.cli.deliveries:deliveries", "List deliveries of events, or show those of one."),
    "demo": LazyCommand("service.cli.demo:demo", "Run everything against a misbehaving sandbox."),
    "endpoints": LazyCommand("service.cli.endpoints:endpoints", "List, test, pause and resume endpoints."),
    "gateway": LazyCommand("service.cli.gateway:gateway", "Speak to a merchant's gateway by hand."),
    "keys": LazyCommand("service.cli.keys:keys", "Make keys."),
    "migrate": LazyCommand("service.cli.migrate:migrate", "Migrate the database to this release's schema."),
    "orders": LazyCommand("service.cli.orders:orders", "Announce, list, show, query and resolve orders."),
    "prune": LazyCommand("service.cli.prune:prune", "Remove old payloads, which hold personal data."),
    "replay": LazyCommand("service.cli.replay:replay", "Deliver events to an endpoint again."),
    "report": LazyCommand("service.cli.report:report", "Report how complete a day was."),
    "run": LazyCommand("service.cli.run:run", "Run a role, or all of them."),
    "sandbox": LazyCommand("service.cli.sandbox:sandbox", "Run a gateway to test against."),
    "schemas": LazyCommand("service.cli.schemas:schemas", "Write the contracts of events."),
    "sign": LazyCommand("service.cli.sign:sign", "See why the sign of a callback does not fit."),
    "spool": LazyCommand("service.cli.spool:spool", "Wait until a spool is empty."),
    "topology": LazyCommand("service.cli.topology:topology", "Declare exchanges and queues on RabbitMQ."),
    "totals": LazyCommand("service.cli.totals:totals", "Show how often things happened, hour by hour."),
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
    help="The settings, in TOML. `payment-callbacks config example` prints an example.",
)
@click.version_option(package_name="payment-callbacks")
@click.pass_context
def main(context: click.Context, settings_path: str) -> None:
    """Receive a payment gateway's callbacks, and deliver one event for each change of status, at least once."""
    context.obj = settings_path
