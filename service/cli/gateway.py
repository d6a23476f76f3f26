"""`payment-callbacks gateway`: calls the gateway's four methods, and probes a gateway."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from service.bootstrap.charging import make_withholder
from service.charging.announce import OrderDraft
from service.charging.bulkhead import Bulkhead
from service.charging.withhold import Payer
from service.cli.gateway_probe import probe
from service.cli.ledger_access import open_ledger
from service.cli.options import choose_merchant, merchant_option, settings_of
from service.cli.personal_data import collect, from_option
from service.config.settings import GatewaySettings, MerchantSettings
from service.domain.masking import mask_personal, mask_unknown_word
from service.gateway.client import GatewayClient, GatewayClients, make_client
from service.gateway.errors import CallFailed, GatewayError, MessageInvalid, OutcomeUnknown
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs
from service.ledger.errors import LedgerUnavailable
from service.ledger.withholds import WithholdOutcome
from service.runtime.clock import now
from service.runtime.logs import configure_logs

_PERSON = ("name", "id_card_number", "mobile")

pay_type_option = click.option("--pay-type", help="Optional if the merchant has only one.")


class _Unknown(click.ClickException):
    """It is unknown whether the call was done."""

    exit_code = 3

    def format_message(self) -> str:
        """The message to show."""
        return f"unknown outcome: {self.message}"


@click.group()
def gateway() -> None:
    """Call a merchant's gateway by hand.

    Exit codes: 0 done, 1 surely not done, 3 unknown outcome. Personal data is prompted for or read from a file, and
    masked in the output.
    """
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())


gateway.add_command(probe)


@gateway.command()
@merchant_option
@pay_type_option
@from_option
@click.pass_context
def bind(context: click.Context, merchant: str | None, pay_type: str | None, file: Path | None) -> None:
    """Start to bind a card: the gateway sends its owner a code. Prints the unique code that `confirm` needs.

    Personal data: name, id_card_number, mobile, bank_card_number.
    """
    chosen, gateway_settings = choose_merchant(settings_of(context), merchant)
    person = collect(file, needed=(*_PERSON, "bank_card_number"))
    args = PreTiedCardArgs(pay_type=_pay_type(chosen, pay_type), **person)
    with _client(chosen, gateway_settings) as client:
        click.echo(f"unique_code: {client.pre_tie_card(args)}")


@gateway.command()
@merchant_option
@pay_type_option
@from_option
@click.option("--unique-code", required=True, help="The code that `bind` has printed.")
@click.pass_context
def confirm(
    context: click.Context, merchant: str | None, pay_type: str | None, file: Path | None, unique_code: str
) -> None:
    """Confirm a binding with the code that the card's owner was sent. Prints the protocol number for withholds.

    Personal data: verification_code, bank_card_number.
    """
    chosen, gateway_settings = choose_merchant(settings_of(context), merchant)
    person = collect(file, needed=("verification_code", "bank_card_number"))
    args = ConfirmTiedCardArgs(unique_code=unique_code, pay_type=_pay_type(chosen, pay_type), **person)
    with _client(chosen, gateway_settings) as client:
        click.echo(f"protocol_no: {client.confirm_tied_card(args)}")


@gateway.command()
@merchant_option
@pay_type_option
@from_option
@click.option("--order", "biz_order_no", required=True, help="A new order number.")
@click.option("--amount", required=True, help="Exact, in the merchant's unit: 100.00 yuan or 10000 fen.")
@click.option("--protocol-no", help="The bound card's protocol number, which `confirm` has printed.")
@click.pass_context
def withhold(
    context: click.Context,
    merchant: str | None,
    pay_type: str | None,
    file: Path | None,
    biz_order_no: str,
    amount: str,
    protocol_no: str | None,
) -> None:
    """Charge a card. The order is announced in the ledger before it is sent, and is never sent twice.

    An accepted order is not a paid order. If it is unknown whether it was accepted, an inquiry is opened. Running the
    same command again sends nothing and prints the first outcome, unless the first withhold was surely not done.

    Personal data: name, id_card_number, mobile, bank_card_number (optional in a file if there is a protocol number).
    """
    settings = settings_of(context)
    chosen, gateway_settings = choose_merchant(settings, merchant)
    by_card = () if protocol_no else ("bank_card_number",)
    person = collect(file, needed=(*_PERSON, *by_card), optional=("bank_card_number",))
    draft = OrderDraft(
        merchant=chosen.slug,
        biz_order_no=biz_order_no,
        amount=amount,
        pay_type=_pay_type(chosen, pay_type),
    )
    with _client(chosen, gateway_settings) as client, open_ledger(settings) as engine:
        gateways = Bulkhead(GatewayClients(usable={chosen.slug: client}, unusable={}), max_calls=1)
        withholder = make_withholder(settings, engine, gateways)
        try:
            payer = Payer(protocol_no=protocol_no, **person)
            sent = withholder.withhold(draft, payer, sent_by="command line").withhold
        except LedgerUnavailable as error:
            raise _Unknown(
                f"the ledger cannot be used; run the command again to learn whether it was sent: {error}"
            ) from error
    _print(
        outcome=sent.outcome.value,
        detail=mask_personal(sent.detail),
        sent_by=sent.sent_by,
        sent_at=sent.sent_at.isoformat(),
        request_id=sent.request_id,
    )
    if sent.outcome in (WithholdOutcome.UNKNOWN, WithholdOutcome.SENDING):
        raise _Unknown("it may have been accepted; an inquiry is open, and `orders show` shows its result")


@gateway.command()
@merchant_option
@click.argument("biz_order_no", metavar="ORDER")
@click.pass_context
def query(context: click.Context, merchant: str | None, biz_order_no: str) -> None:
    """Query an order's status. Records nothing: `orders inquire` queries and records the answer."""
    chosen, gateway_settings = choose_merchant(settings_of(context), merchant)
    with _client(chosen, gateway_settings) as client:
        queried = client.query(biz_order_no)
    if queried.order is None:
        click.echo(f"The gateway has no such order: {mask_personal(queried.message)}")
    else:
        order = queried.order
        _print(
            biz_order_no=order.biz_order_no,
            pay_order_no=order.pay_order_no,
            pay_type=mask_unknown_word(order.pay_type, from_stranger=False),
            pay_status=mask_unknown_word(order.pay_status, from_stranger=False),
            pay_time=order.pay_time,
            channel_response=mask_personal(order.channel_response),
        )


def _pay_type(merchant: MerchantSettings, named: str | None) -> str:
    if named is not None:
        return named
    if len(merchant.pay_types) > 1:
        raise click.UsageError(f"--pay-type: one of {', '.join(sorted(merchant.pay_types))}")
    return next(iter(merchant.pay_types))


@contextmanager
def _client(merchant: MerchantSettings, gateway_settings: GatewaySettings) -> Iterator[GatewayClient]:
    try:
        client = make_client(merchant, gateway_settings, clock=now)
    except GatewayError as error:
        raise click.ClickException(f"merchants.{merchant.slug}.gateway: {error}") from error
    try:
        yield client
    except OutcomeUnknown as error:
        raise _Unknown(str(error)) from error
    except (CallFailed, MessageInvalid) as error:
        raise click.ClickException(f"surely not done: {error}") from error


def _print(**fields: str) -> None:
    for name, value in fields.items():
        click.echo(f"{name}: {value}")
