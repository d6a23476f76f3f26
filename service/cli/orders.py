"""`payment-callbacks orders`: announce, list, show, query and resolve orders, and list what waits for a person."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from service.api.response_schemas import (
    AnnouncedSchema,
    AttentionItemSchema,
    AttentionListSchema,
    HistorySchema,
    InquirySchema,
    OrderListSchema,
    ProposalSchema,
    ResolvedSchema,
    describe_resolved,
)
from service.bootstrap.charging import make_announcer
from service.bootstrap.ledger import make_store
from service.charging.announce import OrderDraft
from service.cli.ledger_access import author_of, open_ledger, person
from service.cli.options import TIME_HELP, AwareTime, Word, log_to_stderr, settings_of
from service.cli.order_tables import show_attention, show_history, show_orders, show_proposals
from service.cli.pages import after_option, as_json_option, limit_option, print_json, print_page
from service.domain.claims import OrderKey, OrderStatus
from service.gateway.errors import MessageInvalid
from service.ledger.attention import (
    GROUPS,
    AttentionFilter,
    AttentionKind,
    AttentionList,
    AttentionPlace,
    confirm_command,
)
from service.ledger.claims import RESOLVABLE, Resolution
from service.ledger.errors import AnnouncementDiffers, AttentionItemUnknown, OrderUnknown, UnknownMerchant
from service.ledger.inquiries import InquiryReason
from service.ledger.orders import OrderFilter, OrderPlace
from service.ledger.proposals import ProposalRecord
from service.ledger.store import LedgerStore

_proposal_option = click.option(
    "--proposal", type=int, required=True, help="Its number, as `orders show` and `orders attention` print it."
)


@click.group()
def orders() -> None:
    """Announce, list and show orders, query the gateway about one, resolve one, or list what waits for a person."""
    log_to_stderr()


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@click.option("--amount", help="The exact amount, in the merchant's unit.")
@click.option("--pay-type", default="", help="One of the merchant's pay types.")
@click.option(
    "--answer-due-at",
    type=AwareTime(),
    help=f"When to query the gateway if there is no terminal status by then. {TIME_HELP}",
)
@as_json_option
@click.pass_context
def announce(
    context: click.Context,
    merchant: str,
    biz_order_no: str,
    amount: str | None,
    pay_type: str,
    answer_due_at: datetime | None,
    as_json: bool,
) -> None:
    """Announce an order before it is sent, and print its notify_url. Safe to repeat."""
    draft = OrderDraft(
        merchant=merchant,
        biz_order_no=biz_order_no,
        amount=amount,
        pay_type=pay_type,
        answer_due_at=answer_due_at,
    )
    with _open_store(context) as store:
        announced = make_announcer(settings_of(context), store).announce(draft)
    if as_json:
        print_json(AnnouncedSchema(), announced)
    else:
        click.echo(announced.notify_url)


@orders.command(name="list")
@click.option("--merchant")
@click.option("--status", type=Word(OrderStatus))
@click.option("--conflicted/--not-conflicted", default=None, help="Whether trusted claims contradict each other.")
@click.option("--amount", help="Only orders with this exact amount.")
@click.option("--number", help="Only orders that a merchant of yours or the gateway calls by this number.")
@click.option("--updated-since", type=AwareTime(), help=f"Only orders that have changed since. {TIME_HELP}")
@click.option("--updated-before", type=AwareTime(), help=f"Only orders that have not changed since. {TIME_HELP}")
@after_option(OrderPlace)
@limit_option(50)
@as_json_option
@click.pass_context
def list_(context: click.Context, /, as_json: bool, limit: int, number: str | None, **chosen: Any) -> None:
    """List orders, the last changed ones first."""
    if number is not None and any(value is not None for value in chosen.values()):
        raise click.UsageError("--number excludes every other filter")
    with _open_store(context) as store:
        if number is None:
            page = store.list_orders(OrderFilter(**chosen), limit=limit)
        else:
            page = store.find_orders(number, limit=limit)
    print_page(OrderListSchema(), "orders", page, limit=limit, as_json=as_json, show=show_orders)


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@as_json_option
@click.pass_context
def show(context: click.Context, merchant: str, biz_order_no: str, as_json: bool) -> None:
    """Show an order with its claims, queries, events and deliveries.

    Of the claims that never counted only the newest 200 are shown: a forger can make any number of them.
    """
    with _open_store(context) as store:
        history = store.order_history(OrderKey(merchant, biz_order_no))
    if not history.known:
        raise _unknown(merchant, biz_order_no)
    if as_json:
        print_json(HistorySchema(), history)
    else:
        show_history(history)


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@click.option("--reason", required=True, help="Why. The audit keeps it.")
@click.option("--by", help="Who asks. The default is the user who runs this.")
@as_json_option
@click.pass_context
def inquire(
    context: click.Context, merchant: str, biz_order_no: str, reason: str, by: str | None, as_json: bool
) -> None:
    """Query the gateway about an order as soon as the merchant's limits allow. The inquirer does it."""
    author = author_of(by, reason)
    order = OrderKey(merchant, biz_order_no)
    with _open_store(context) as store:
        if not store.knows(order):
            raise _unknown(merchant, biz_order_no)
        if not store.inquire(order, InquiryReason.OPERATOR, author=author):
            raise click.ClickException(f"the gateway cannot be asked: set [merchants.{merchant}.gateway]")
        inquiry = store.load_inquiry(order)
    if as_json:
        print_json(InquirySchema(), inquiry)
    elif inquiry is not None:
        click.echo(f"A query is scheduled for {inquiry.due_at.isoformat()}; an inquirer has to be running.")


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@click.argument("status", type=Word(RESOLVABLE))
@click.option("--by", required=True, help="Who decides. Kept for good.")
@click.option("--reason", required=True, help="Why, and on what evidence. Kept for good.")
@click.option("--pay-order-no", help="The gateway's number of the payment, if known.")
@click.option("--pay-type", default="", help="The channel that it took, if known. Settles a dispute about it.")
@click.option("--amount", help="The exact amount, in the merchant's unit, if known. Settles a dispute about it.")
@click.option("--paid-at", type=AwareTime(), help=f"When the money moved, if known. {TIME_HELP}")
@click.option("--sequence", type=int, help="As `orders show` printed it. If it has changed since, nothing is done.")
@as_json_option
@click.confirmation_option(prompt="This overrides the gateway and is sent to downstream systems. Continue?")
@click.pass_context
def resolve(
    context: click.Context,
    merchant: str,
    biz_order_no: str,
    status: OrderStatus,
    by: str,
    reason: str,
    pay_order_no: str | None,
    pay_type: str,
    amount: str | None,
    paid_at: datetime | None,
    sequence: int | None,
    as_json: bool,
) -> None:
    """Decide an order's status in your own name. `orders show` keeps it for good.

    It ends a conflict: the order has the values that you state and, of those that you do not state, the ones that
    stand.

    If the merchant's settings have second_person_above, it may take a second person. Then this is a proposal, and it
    changes nothing until another person runs `orders confirm`.
    """
    author = author_of(by, reason)
    with _open_store(context) as store:
        announcer = make_announcer(settings_of(context), store)
        resolution = Resolution(
            order=OrderKey(merchant, biz_order_no),
            status=status,
            stated_by=author.name,
            reason=author.reason,
            identity=author.identity,
            pay_order_no=pay_order_no,
            pay_type=pay_type,
            amount=announcer.read_payment(merchant, amount=amount, pay_type=pay_type),
            paid_at=paid_at,
            seen_sequence=sequence,
        )
        try:
            resolved = store.resolve(resolution)
        except OrderUnknown as error:
            raise _unknown(merchant, biz_order_no) from error
        order = store.load_order(resolution.order)
    if as_json:
        print_json(ResolvedSchema(), describe_resolved(resolved, order))
    elif isinstance(resolved, ProposalRecord):
        click.echo(f"Proposal {resolved.id}: the order has not changed yet. Another person has to run:")
        click.echo(confirm_command(merchant, biz_order_no, str(resolved.id)))
    elif order is not None:
        click.echo(f"{resolved.value}: the order is {order.state.status.value}, by {resolution.stated_by}")


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@_proposal_option
@click.option("--by", help="Who confirms; not who has made the proposal. The default is the user who runs this.")
@click.option("--yes", is_flag=True, help="Do not show the proposal and ask.")
@as_json_option
@click.pass_context
def confirm(
    context: click.Context, merchant: str, biz_order_no: str, proposal: int, by: str | None, yes: bool, as_json: bool
) -> None:
    """Confirm another person's proposal to resolve an order, in your own name. `orders show` keeps it for good.

    It is refused if you made the proposal yourself, and if the order has changed since: then look at it again.
    """
    author, key = person(by), OrderKey(merchant, biz_order_no)
    with _open_store(context) as store:
        if not yes:
            show_proposals([one for one in store.order_history(key).proposals if one.id == proposal])
            click.confirm("This overrides the gateway and is sent to downstream systems. Continue?", abort=True)
        verdict = store.confirm(key, proposal, author=author)
        order = store.load_order(key)
    if as_json:
        print_json(ResolvedSchema(), describe_resolved(verdict, order))
    elif order is not None:
        click.echo(f"{verdict.value}: the order is {order.state.status.value}, confirmed by {author.name}")


@orders.command()
@click.argument("merchant")
@click.argument("biz_order_no")
@_proposal_option
@click.option("--reason", required=True, help="Why. Kept for good.")
@click.option("--by", help="Who withdraws it. The default is the user who runs this.")
@as_json_option
@click.pass_context
def withdraw(
    context: click.Context, merchant: str, biz_order_no: str, proposal: int, reason: str, by: str | None, as_json: bool
) -> None:
    """Withdraw a proposal to resolve an order, your own or another person's, so that nobody confirms it."""
    author = author_of(by, reason)
    with _open_store(context) as store:
        withdrawn = store.withdraw(OrderKey(merchant, biz_order_no), proposal, author=author)
    if as_json:
        print_json(ProposalSchema(), withdrawn)
    else:
        click.echo(f"Proposal {withdrawn.id} is withdrawn, by {withdrawn.decided_by}")


@orders.command()
@click.option("--kind", type=Word(AttentionKind), help="Only this kind.")
@click.option("--merchant", help="Only what concerns this merchant.")
@click.option(
    "--group", help="The members of this item of the kind disputed-field or parked-deliveries, also acknowledged ones."
)
@click.option("--all", "with_acknowledged", is_flag=True, help="Also what somebody has acknowledged.")
@after_option(AttentionPlace)
@limit_option(100)
@as_json_option
@click.pass_context
def attention(
    context: click.Context,
    kind: AttentionKind | None,
    merchant: str | None,
    group: str | None,
    with_acknowledged: bool,
    after: AttentionPlace | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what waits for a person, the longest first: why, since when, the amount, and the command to run next.

    Many conflicts of one merchant about the same field are one item, and so are many events that were given up for one
    endpoint. --group lists its members.

    docs/attention.md explains each kind.
    """
    if group and group.partition("/")[0] not in GROUPS:
        raise click.UsageError(f"--group is not an item of the kind {' or '.join(GROUPS)}")
    chosen = AttentionFilter(
        kind=kind,
        merchant=merchant,
        group=group,
        acknowledged=None if with_acknowledged or group else False,
        after=after,
    )
    with open_ledger(settings_of(context)) as engine:
        items = AttentionList(engine=engine).list(chosen, limit=limit)
    print_page(AttentionListSchema(), "items", items, limit=limit, as_json=as_json, show=show_attention)


@orders.command()
@click.argument("item")
@click.option("--by", required=True, help="Who has seen it.")
@click.option("--note", required=True, help="What is being done about it.")
@as_json_option
@click.pass_context
def acknowledge(context: click.Context, item: str, by: str, note: str, as_json: bool) -> None:
    """Take an ITEM of `orders attention` out of sight until it changes, in your own name. It settles nothing."""
    if not note.strip():
        raise click.UsageError("--note must not be empty")
    with open_ledger(settings_of(context)) as engine:
        try:
            acknowledged = AttentionList(engine=engine).acknowledge(item, name=person(by).name, note=note.strip())
        except AttentionItemUnknown as error:
            raise click.ClickException(
                f"nothing called {item!r} waits for a person; `orders attention --all` lists what does"
            ) from error
    if as_json:
        print_json(AttentionItemSchema(), acknowledged)
    else:
        click.echo(f"{acknowledged.id} is acknowledged by {acknowledged.acknowledged_by}: {acknowledged.note}")


@contextmanager
def _open_store(context: click.Context) -> Iterator[LedgerStore]:
    """The ledger. Its errors end the command with a line that says what to do."""
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        try:
            yield make_store(settings, engine)
        except UnknownMerchant as error:
            raise click.ClickException(f"no merchant `{error}` is configured") from error
        except AnnouncementDiffers as error:
            raise click.ClickException(f"{error}; for another payment use a new biz_order_no") from error
        except MessageInvalid as error:
            raise click.ClickException(str(error)) from error


def _unknown(merchant: str, biz_order_no: str) -> click.ClickException:
    return click.ClickException(
        f"unknown order {biz_order_no!r} of merchant {merchant!r}: never announced, and no callback named it"
    )
