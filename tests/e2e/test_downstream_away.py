"""A downstream that is down, or worse, hangs."""

from collections.abc import Callable

from tests.support.deployment import ROLES, Deployment, Place, await_events
from tests.support.downstream import Downstream
from tests.support.waiting import eventually

_ORDERS = 12


def test_a_dead_downstream_hears_everything_later_in_order_and_delays_no_other(
    deploy: Callable[..., Deployment], find_place: Callable[[], Place], own_shop: Downstream
) -> None:
    with Downstream() as books:
        deployment = deploy(find_place(), books=books)
        deployment.start(*ROLES)
        deployment.wait_until_receiving()
        own_shop.fail()
        callbacks = [
            deployment.callback(f"away-{number}", pay_status=status)
            for number in range(_ORDERS)
            for status in ("pending", "success")
        ]
        for number, callback in enumerate(callbacks):
            if number == len(callbacks) // 2:
                eventually(lambda: own_shop.refused > _ORDERS)
                own_shop.hang()
            assert deployment.sender.send(callback).acknowledged
        eventually(lambda: len(books.received) == len(callbacks))
        assert own_shop.received == []

        own_shop.recover()
        await_events(callbacks, ledger=deployment.ledger, downstream=own_shop, prefix="away")
        assert {event.id for event in own_shop.received} == {event.id for event in books.received}
