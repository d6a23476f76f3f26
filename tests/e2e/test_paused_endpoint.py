"""An endpoint that an operator pauses in the midst of the traffic."""

from collections.abc import Callable

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, TERMINAL, Deployment, Place, assert_told_once, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.waiting import eventually


def test_a_paused_endpoint_hears_nothing_over_restarts_and_everything_once_and_in_order_when_resumed(
    deploy: Callable[..., Deployment], find_place: Callable[[], Place], own_shop: Downstream
) -> None:
    with Downstream() as books:
        deployment = deploy(find_place(), books=books)
        deployment.start(*ROLES, "dispatcher-2")
        deployment.wait_until_receiving()
        with Load(
            sender=deployment.sender, make_callback=deployment.callback, prefix="paused", threads=3, pause_seconds=0.2
        ) as load:
            eventually(lambda: own_shop.received)
            run(deployment, "pause", "shop", "--by", "Li Lei", "--reason", "they are moving")
            eventually(lambda: deployment.ledger.count_under_way("shop") == 0)
            heard = len(own_shop.received)
            load.wait_for_acknowledgements(60)
            deployment.kill("dispatcher")
            deployment.start("dispatcher")
            load.wait_for_acknowledgements(60)
        await_claims(load.acknowledged, ledger=deployment.ledger, prefix="paused")
        # The other endpoint hears of every payment meanwhile: so long had the paused one time to hear of one.
        paid = {callback.biz_order_no for callback in load.acknowledged if callback.pay_status == "success"}
        eventually(lambda: paid <= paid_orders(books))
        assert len(own_shop.received) == heard
        assert not paid <= paid_orders(own_shop)
        assert "they are moving" in run(deployment, "list")

        run(deployment, "resume", "shop", "--reason", "over")
        await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="paused")
        assert_told_once(own_shop, output=deployment.output)


def paid_orders(downstream: Downstream) -> set[str]:
    return {event.biz_order_no for event in downstream.received if event.type in TERMINAL}


def run(deployment: Deployment, *arguments: str) -> str:
    done = deployment.command("endpoints", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
