"""`/v1/events`: the event feed, for consumers that would rather pull."""

import threading
import time
from typing import Any

from service.api.blueprint import ApiBlueprint
from service.api.problems import Problem
from service.api.request_schemas import FeedFilterSchema, FeedQuery
from service.api.response_schemas import FeedPageSchema, OrderEventsSchema
from service.config.settings import ApiScope
from service.domain.claims import OrderKey
from service.ledger.cursors import write_cursor
from service.ledger.errors import OrderUnknown
from service.ledger.feed import EventFeed, FeedPage, OrderEvents
from service.serving.health import Drain

# How often a waiting request looks for events.
_LOOK_SECONDS = 0.5


def make_events(*, feed: EventFeed, drain: Drain, max_waiting: int) -> ApiBlueprint:
    """The resource. Its views may run on many threads at once.

    At most `max_waiting` requests wait for events at once, each on a thread and none with a database connection.
    """
    blueprint = ApiBlueprint(
        "events", __name__, url_prefix="/v1", description="Events, for consumers that fetch them themselves."
    )
    places = threading.BoundedSemaphore(max_waiting)

    @blueprint.route("/events")
    @blueprint.operation(
        "readEvents", scope=ApiScope.READ, problems={410: "The ledger does not have the event that the cursor names."}
    )
    @blueprint.arguments(FeedFilterSchema, location="query")
    @blueprint.response(200, FeedPageSchema)
    def read_events(query: FeedQuery) -> dict[str, Any]:
        """Read events, the oldest first

        Each event comes once, delivered to endpoints or not. Read on with `next`: every event that is made later comes
        after it. Apply events as the consumer's guide says; the events of an order may come out of sequence.
        """
        page = _find(query)
        if not page.bodies and not page.more and query.wait_seconds:
            page = _wait(query, page)
        return {"bodies": page.bodies, "next": write_cursor(page.next), "more": page.more}

    def _find(query: FeedQuery) -> FeedPage:
        after = feed.latest() if query.after is None else query.after
        return feed.read(after, query.chosen, limit=query.limit)

    def _wait(query: FeedQuery, page: FeedPage) -> FeedPage:
        if not places.acquire(blocking=False):
            raise Problem(
                status=503,
                kind="too-many-wait",
                title="Too many requests wait for events.",
                detail=f"{max_waiting} may wait in one process, a quarter of `api.threads` in the settings. Send the "
                "same request again a little later, or without `wait_seconds`.",
            )
        try:
            until = time.monotonic() + query.wait_seconds
            while not page.bodies and not page.more and not drain.begun and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _LOOK_SECONDS))
                page = feed.read(page.next, query.chosen, limit=query.limit)
            return page
        finally:
            places.release()

    @blueprint.route("/orders/<merchant:merchant>/<order_number:biz_order_no>/history")
    @blueprint.operation(
        "readOrderEvents", scope=ApiScope.READ, problems={404: "No trusted claim and no announcement names the order."}
    )
    @blueprint.response(200, OrderEventsSchema)
    def read_order_events(merchant: str, biz_order_no: str) -> OrderEvents:
        """Read an order's state and all of its events, in sequence"""
        found = feed.of_order(OrderKey(merchant, biz_order_no))
        if found is None:
            raise OrderUnknown(biz_order_no)
        return found

    return blueprint
