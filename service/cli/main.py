"""The command line: `payment-callbacks`."""

import click

from service.cli.config import config
from service.cli.dead import dead
from service.cli.demo import demo
from service.cli.endpoints import endpoints
from service.cli.gateway import gateway
from service.cli.keys import keys
from service.cli.migrate import migrate
from service.cli.orders import orders
from service.cli.prune import prune
from service.cli.replay import replay
from service.cli.report import report
from service.cli.run import run
from service.cli.sandbox import sandbox
from service.cli.schemas import schemas
from service.cli.sign import sign
from service.cli.spool import spool
from service.cli.topology import topology


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


for command in (
    run,
    demo,
    sandbox,
    sign,
    config,
    dead,
    endpoints,
    gateway,
    keys,
    migrate,
    topology,
    orders,
    replay,
    report,
    prune,
    schemas,
    spool,
):
    main.add_command(command)
