"""Dead letters: messages that could not be recorded, and what a person wants done about them."""

from collections.abc import Sequence

from flask import Blueprint, flash, redirect, request, url_for
from flask_babel import gettext, lazy_gettext
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response

from service.config.settings import ApiScope
from service.console.pages import Column, Listing, after, command, form_text, limit, list_page, next_url, page, require
from service.console.words import DEAD_LETTER_ACTIONS, people_in_words
from service.ledger.dead_letters import DeadLetterAction, DeadLetterPlace, DeadLetterRecord, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown

_COLUMNS: Sequence[Column[DeadLetterRecord]] = (
    Column(title=lazy_gettext("since"), value=lambda letter: letter.died_at),
    Column(
        title=lazy_gettext("message"),
        value=lambda letter: letter.id,
        link=lambda letter: url_for("dead_letters.show", id=letter.id),
        is_identifier=True,
    ),
    Column(title=lazy_gettext("reason"), value=lambda letter: letter.reason),
    Column(title=lazy_gettext("requested"), value=lambda letter: _request_of(letter)),
)


def make_dead_letters(*, letters: DeadLetterStore) -> Blueprint:
    """The pages. Views may run on many threads at once."""
    blueprint = Blueprint("dead_letters", __name__, url_prefix="/dead-letters")

    @blueprint.route("")
    def list_open() -> str | Response:
        found = letters.load_open(limit=limit(), after=after(DeadLetterPlace))
        listing = Listing(columns=_COLUMNS, items=found, next_url=next_url(found))
        return list_page("dead_letters.html", "dead-letters", listing, command=command("dead", "list"))

    @blueprint.route("/one")
    def show() -> str:
        letter = _find(request.args.get("id", ""))
        return page(
            "dead_letter.html", letter=letter, actions=DEAD_LETTER_ACTIONS, command=command("dead", "show", letter.id)
        )

    @blueprint.route("/settle", methods=["POST"])
    def settle() -> Response:
        person = require(ApiScope.RESOLVE)
        try:
            action = DeadLetterAction(form_text("action"))
            letters.request([form_text("id")], action, author=person.author(form_text("reason")))
        except DeadLetterUnknown as error:
            raise NotFound from error
        except ValueError as error:
            raise BadRequest("action") from error
        flash(gettext("Requested: the ledger role does it within seconds."))
        return redirect(url_for(".show", id=form_text("id")))

    def _find(letter: str) -> DeadLetterRecord:
        if not (found := letters.load([letter])):
            raise NotFound
        return found[0]

    return blueprint


def _request_of(letter: DeadLetterRecord) -> str:
    return (
        f"{DEAD_LETTER_ACTIONS[letter.requested]}: {people_in_words(letter.requested_by)}" if letter.requested else ""
    )
