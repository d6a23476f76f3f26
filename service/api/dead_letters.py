"""`/v1/dead-letters`: messages that could not be recorded."""

from typing import Any

from flask import g

from service.api.blueprint import ApiBlueprint
from service.api.request_schemas import DeadLetterRequestSchema
from service.api.response_schemas import DeadLetterListSchema, DeadLetterSchema
from service.config.settings import ApiScope
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown
from service.runtime.logs import Logger

_log = Logger(__name__)


def make_dead_letters(*, letters: DeadLetterStore) -> ApiBlueprint:
    """The resource. Its views may run on many threads at once."""
    blueprint = ApiBlueprint(
        "dead-letters", __name__, url_prefix="/v1/dead-letters", description="Messages that could not be recorded."
    )

    @blueprint.route("")
    @blueprint.operation("listDeadLetters", scope=ApiScope.READ)
    @blueprint.response(200, DeadLetterListSchema)
    def list_letters() -> dict[str, Any]:
        """List dead letters, the oldest first, at most 1000"""
        return {"dead_letters": letters.load_open(limit=1000)}

    @blueprint.route("/<dead_letter:name>")
    @blueprint.operation("showDeadLetter", scope=ApiScope.READ, problems={404: "No dead letter ever had this id."})
    @blueprint.response(200, DeadLetterSchema)
    def show(name: str) -> DeadLetterRecord:
        """Show a dead letter, or what became of it"""
        if not (found := letters.load([name])):
            raise DeadLetterUnknown(name)
        return found[0]

    @blueprint.route("/requests", methods=["POST"])
    @blueprint.operation(
        "settleDeadLetters",
        scope=ApiScope.RESOLVE,
        problems={404: "One of the ids is not a dead letter; nothing is done."},
    )
    @blueprint.arguments(DeadLetterRequestSchema)
    @blueprint.response(202, DeadLetterListSchema)
    def settle(body: dict[str, Any]) -> dict[str, Any]:
        """Have dead letters replayed or dropped, in a person's name

        The ledger role does it within seconds; then `settled_at` and `outcome` of each say what became of it. A
        replayed message that was recorded before changes nothing. A dropped one is deleted for good.
        """
        letters.request(body["ids"], body["action"], author=g.caller.author(body))
        _log.info("dead_letters_requested", caller=g.caller.name, action=body["action"], count=len(body["ids"]))
        return {"dead_letters": letters.load(body["ids"])}

    return blueprint
