"""One withhold from the command line, with the ledger knowing of it before, and of its outcome after."""

import getpass
from collections.abc import Callable

import click
from sqlalchemy import Engine

from service import bootstrap
from service.claims import OrderKey
from service.gateway.client import GatewayClient
from service.gateway.errors import CallFailed, OutcomeUnknown
from service.gateway.messages import OrderStatement, SingleWithholdArgs
from service.gateway.notify_urls import NotifyUrls
from service.ledger.announcements import Announcement
from service.ledger.errors import LedgerError
from service.ledger.inquiries import InquiryReason
from service.ledger.schema import migrate
from service.ledger.withholds import WithholdOutcome, Withholds
from service.settings import MerchantSettings, Settings


def notify_url(settings: Settings, merchant: MerchantSettings, biz_order_no: str) -> str:
    """The address for the order's callback: unguessable where the merchant has token keys."""
    tokens = bootstrap.make_tokens(merchant) if merchant.token_keys else None
    urls = NotifyUrls(public_url=settings.receiver.public_url, tokens={merchant.slug: tokens})
    return urls.of_order(merchant.slug, biz_order_no)


def send_withhold(
    settings: Settings, merchant: MerchantSettings, client: GatewayClient, args: SingleWithholdArgs
) -> OrderStatement:
    """Announce the order, send it, record what is known then; where nothing is, open an inquiry.

    Raises `click.ClickException` where it was not sent for the ledger's sake, and what the client raises.
    """
    engine = bootstrap.make_ledger_engine(settings)
    try:
        return _send(settings, merchant, client, args, engine)
    finally:
        engine.dispose()


def _send(
    settings: Settings, merchant: MerchantSettings, client: GatewayClient, args: SingleWithholdArgs, engine: Engine
) -> OrderStatement:
    order = OrderKey(merchant.slug, args.biz_order_no)
    store = bootstrap.make_store(settings, engine)
    withholds = Withholds(engine=engine, clock=bootstrap.now)
    try:
        if not settings.database_url:
            migrate(engine)
        store.announce(
            Announcement(
                merchant=order.merchant,
                biz_order_no=order.biz_order_no,
                amount=args.amount,
                amount_unit=merchant.amount_unit,
                pay_type=args.pay_type,
            )
        )
        withholds.begin(order, sent_by=f"command line ({getpass.getuser()})")
    except LedgerError as error:
        raise click.ClickException(f"surely not done, for the ledger has to know of it first: {error}") from error
    try:
        statement = client.withhold(args)
    except OutcomeUnknown as error:
        _tell(lambda: store.inquire(order, InquiryReason.UNKNOWN_OUTCOME))
        _settle(withholds, order, WithholdOutcome.UNKNOWN, error)
        raise
    except CallFailed as error:
        _settle(withholds, order, WithholdOutcome.NOT_DONE, error)
        raise
    _tell(lambda: withholds.settle(order, WithholdOutcome.ACCEPTED))
    return statement


def _settle(withholds: Withholds, order: OrderKey, outcome: WithholdOutcome, error: CallFailed) -> None:
    _tell(lambda: withholds.settle(order, outcome, detail=str(error), request_id=error.request_id))


def _tell(action: Callable[[], object]) -> None:
    try:
        action()
    except LedgerError as error:
        # What the gateway said comes first; the order is announced, so it is asked for when an answer is due.
        click.echo(f"warning: the ledger could not be told of the outcome: {error}", err=True)
