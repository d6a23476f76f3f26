"""The mutants: the service with one guard taken away. For each, a test is named that must fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class GuardGone(Exception):
    """The text of a guard is not in its file exactly once: name it in `tests/mutants/mutants.py` as it is now."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A text of a file, and what the mutant has in its place."""

    file: str
    guard: str
    without: str

    def apply(self, text: str) -> str:
        """The file's text without the guard. Raises GuardGone."""
        if (found := text.count(self.guard)) != 1:
            raise GuardGone(f"{self.file} has this text {found} times instead of once:\n{self.guard}")
        return text.replace(self.guard, self.without)


@dataclass(frozen=True, slots=True)
class Mutant:
    """The service without one guard."""

    #: What the service does wrong then, in a few words.
    name: str
    edits: Sequence[Edit]
    #: At least one of these fails: pytest's names.
    tests: Sequence[str]

    def apply(self, folder: Path) -> None:
        """Take the guard away in a copy of the repository. Raises GuardGone."""
        for edit in self.edits:
            file = folder / edit.file
            file.write_text(edit.apply(file.read_text()))


def _mutant(name: str, file: str, guard: str, without: str, *tests: str) -> Mutant:
    return Mutant(name, [Edit(file, guard, without)], tests)


_LEDGER_CONSUMER = "tests/unit/consumers/test_ledger_consumer.py::"
_RECORDING = "tests/integration/ledger/test_recording.py::"
_OUTBOX = "tests/integration/ledger/test_outbox.py::"
_INQUIRY_QUEUE = "tests/integration/ledger/test_inquiry_queue.py::"
_ORDER_STATE = "tests/unit/domain/test_order_state.py::"
_CALLBACKS = "tests/unit/receiver/test_callbacks.py::"
_TOKENS = "tests/unit/gateway/test_notify_tokens.py::"
_VECTORS = "tests/unit/gateway/test_callback_vectors.py::"
_PUBLISHER = "tests/integration/messaging/test_rabbit_publisher.py::"
_SUBSCRIBER = "tests/integration/messaging/test_rabbit_subscriber.py::"
_WITHHOLDS = "tests/integration/ledger/test_withholds.py::"
_INTERIM = "tests/integration/gateway/test_interim_answers.py::"

MUTANTS: Sequence[Mutant] = (
    # ---- the receiver: believe no lie, answer after the confirm ----
    _mutant(
        "a callback is answered before the queue has confirmed it",
        "service/receiver/app.py",
        "            self._publisher.submit(encode_claim(claim), deadline=deadline, on_settled=pending.settle)\n",
        "            pending.settle(None)\n"
        "            self._publisher.submit(encode_claim(claim), deadline=deadline, on_settled=lambda error: None)\n",
        _CALLBACKS + "test_nothing_is_acknowledged_before_the_queue_has_confirmed",
    ),
    _mutant(
        "a message that no queue takes is not returned (mandatory)",
        "service/messaging/rabbitmq/publisher.py",
        "pending.properties, mandatory=True",
        "pending.properties, mandatory=False",
        _PUBLISHER + "test_a_message_that_no_queue_is_bound_for_is_unroutable",
    ),
    _mutant(
        "a returned message counts as confirmed",
        "service/messaging/rabbitmq/publisher.py",
        "            if pending.returned is None:\n",
        "            if True:\n",
        _PUBLISHER + "test_a_message_that_no_queue_is_bound_for_is_unroutable",
    ),
    _mutant(
        "a refused message counts as confirmed (nack)",
        "service/messaging/rabbitmq/publisher.py",
        "        if isinstance(method, Basic.Nack):\n",
        "        if False:\n",
        _PUBLISHER + "test_a_full_queue_rejects",
    ),
    _mutant(
        "the sign is not checked",
        "service/gateway/signature.py",
        "        if hmac.compare_digest(signs[text], sign):\n",
        "        if True:\n",
        _VECTORS + "test_an_added_or_removed_field_is_refused",
    ),
    _mutant(
        "the sign of nothing is accepted",
        "service/gateway/signature.py",
        "    if sign in DEGENERATE_SIGNS:\n",
        "    if False:\n",
        _VECTORS + "test_a_degenerate_sign_is_refused_whatever_it_signs",
    ),
    _mutant(
        "the beginning of a token's MAC suffices",
        "service/gateway/notify_addresses.py",
        "hmac.compare_digest(self._mac(secret, order), mac)",
        "hmac.compare_digest(self._mac(secret, order)[: len(mac)], mac)",
        _TOKENS + "test_a_cut_mac_is_refused",
    ),
    _mutant(
        "a token is not bound to its merchant",
        "service/gateway/notify_addresses.py",
        'b"v1\\n" + self._merchant.encode() + b"\\n" + order',
        'b"v1\\n" + order',
        _TOKENS + "test_a_token_of_another_merchant_is_refused",
    ),
    _mutant(
        "a token is not bound to its order",
        "service/receiver/app.py",
        "        if address.biz_order_no not in (None, claim.biz_order_no):\n",
        "        if False:\n",
        _CALLBACKS + "test_a_token_opens_no_other_order_than_its_own",
    ),
    _mutant(
        "refusals are not counted",
        "service/receiver/app.py",
        "        self._refusals.count(merchant, reason)\n",
        "",
        _CALLBACKS + "test_refusals_are_counted_like_in_the_metric",
    ),
    # ---- the queue ----
    _mutant(
        "the embedded queue confirms what is not on the disk (fsync)",
        "service/messaging/sqlite/queue.py",
        'connection.execute("PRAGMA synchronous = FULL")',
        'connection.execute("PRAGMA synchronous = OFF")',
        "tests/unit/messaging/test_embedded.py::test_what_is_confirmed_survives_a_power_cut",
    ),
    _mutant(
        "the embedded queue removes a message for who has lost its lease",
        "service/messaging/sqlite/queue.py",
        'connection.executemany("DELETE FROM message WHERE id = ? AND lease = ?", keys)',
        'connection.executemany("DELETE FROM message WHERE id = ?", [key[:1] for key in keys])',
        "tests/unit/messaging/test_embedded.py::"
        "test_a_lease_that_ran_out_hands_the_message_to_another_and_voids_the_first_ones_acknowledgement",
    ),
    _mutant(
        "the spool forgets what the broker has not confirmed",
        "service/messaging/sqlite/spool.py",
        "confirmed = [item for item, failure in published if failure is None]",
        "confirmed = [item for item, _ in published]",
        "tests/integration/messaging/test_spool.py::test_what_was_published_during_an_outage_arrives_after_it",
    ),
    _mutant(
        "a dead letter is acknowledged before it is stored",
        "service/messaging/rabbitmq/subscriber.py",
        "        self._dead_letter_publisher.publish(message, timeout_seconds=_DEAD_LETTER_SECONDS)\n"
        "        self.acknowledge([delivery])\n",
        "        self.acknowledge([delivery])\n"
        "        self._dead_letter_publisher.publish(message, timeout_seconds=_DEAD_LETTER_SECONDS)\n",
        _SUBSCRIBER + "test_a_dead_letter_that_is_not_stored_stays_in_the_queue",
    ),
    _mutant(
        "a replayed dead letter is dropped before it is in the queue",
        "service/messaging/rabbitmq/dead_letters.py",
        "                        settle(letter)\n                        session.acknowledge(fetched)\n",
        "                        session.acknowledge(fetched)\n                        settle(letter)\n",
        "tests/integration/messaging/test_rabbit_dead_letters.py::test_a_replay_that_is_not_confirmed_loses_nothing",
    ),
    # ---- the ledger consumer ----
    _mutant(
        "a batch is acknowledged before it is committed",
        "consumers/ledger.py",
        "            retrier.call(lambda: self._recorder.record(contents))\n",
        "            retrier.call(lambda: self._subscriber.acknowledge([delivery for delivery, _ in part]))\n"
        "            retrier.call(lambda: self._recorder.record(contents))\n",
        _LEDGER_CONSUMER + "test_a_batch_is_committed_before_it_is_acknowledged",
    ),
    Mutant(
        "a batch is requeued while the database is away",
        [
            Edit(
                "consumers/ledger.py",
                "from service.ledger.errors import ClaimUnstorable, UnknownMerchant\n",
                "from service.ledger.errors import ClaimUnstorable, LedgerUnavailable, UnknownMerchant\n",
            ),
            Edit(
                "consumers/ledger.py",
                "            retrier.call(lambda: self._recorder.record(contents))\n",
                "            self._recorder.record(contents)\n"
                "        except LedgerUnavailable:\n"
                "            self._subscriber.release([delivery for delivery, _ in part])\n"
                "            self._forget([delivery for delivery, _ in part])\n"
                "            return None\n",
            ),
        ],
        [_LEDGER_CONSUMER + "test_a_batch_is_held_while_the_database_is_away_and_nothing_more_is_taken"],
    ),
    _mutant(
        "a message is put aside though nothing proves that recording works",
        "consumers/ledger.py",
        "            if failure.is_poison or any_recorded:\n",
        "            if True:\n",
        _LEDGER_CONSUMER + "test_a_recorder_that_fails_for_every_message_buries_none",
    ),
    _mutant(
        "a dead letter is published before the ledger knows of it",
        "consumers/ledger.py",
        "        retrier.call(lambda: self._recorder.record_dead_letter(failure.delivery.message, reason=reason))\n"
        "        retrier.call(lambda: self._subscriber.dead_letter(failure.delivery, reason=reason))\n",
        "        retrier.call(lambda: self._subscriber.dead_letter(failure.delivery, reason=reason))\n"
        "        retrier.call(lambda: self._recorder.record_dead_letter(failure.delivery.message, reason=reason))\n",
        _LEDGER_CONSUMER + "test_a_dead_letter_is_recorded_before_it_is_published",
    ),
    # ---- the ledger ----
    _mutant(
        "a repeated callback is recorded again (no unique key)",
        "service/ledger/claims.py",
        '        "digest": claim.digest,\n',
        '        "digest": f"{claim.digest} {id(incoming)}",\n',
        _RECORDING + "test_the_same_callback_again_is_a_duplicate_without_a_row[sqlite]",
    ),
    Mutant(
        "a forged copy swallows the true callback (trust is not in the key)",
        [
            Edit(
                "service/ledger/tables.py",
                '("merchant", "biz_order_no", "digest", "trust", "counted")',
                '("merchant", "biz_order_no", "digest")',
            ),
            Edit(
                "service/ledger/migrations/versions/0001_ledger.py",
                '["merchant", "biz_order_no", "digest", "trust", "counted"]',
                '["merchant", "biz_order_no", "digest"]',
            ),
        ],
        [_RECORDING + "test_a_forged_copy_before_the_true_callback_does_not_swallow_it[False-sqlite]"],
    ),
    Mutant(
        "a proof that comes later is taken for a repeat (trust is not in the key)",
        [
            Edit(
                "service/ledger/tables.py",
                '("merchant", "biz_order_no", "digest", "trust", "counted")',
                '("merchant", "biz_order_no", "digest", "counted")',
            ),
            Edit(
                "service/ledger/migrations/versions/0001_ledger.py",
                '["merchant", "biz_order_no", "digest", "trust", "counted"]',
                '["merchant", "biz_order_no", "digest", "counted"]',
            ),
        ],
        [_RECORDING + "test_a_copy_that_proves_more_raises_the_trust[False-sqlite]"],
    ),
    _mutant(
        "a forged copy in the same batch swallows the true callback",
        "service/ledger/claims.py",
        "claim.digest, int(claim.trust), self.counted)\n        return once",
        "claim.digest)\n        return once",
        _RECORDING + "test_a_forged_copy_before_the_true_callback_does_not_swallow_it[True-sqlite]",
    ),
    Mutant(
        "old orders are pruned",
        [
            Edit(
                "service/ledger/store.py",
                "        pruned = Forgeries(engine=self._engine).remove(before=before).claims\n",
                "        pruned = Forgeries(engine=self._engine).remove(before=before).claims\n"
                "        old = orders.orders.delete().where(orders.orders.c.updated_at < before)\n"
                "        write(self._engine, lambda connection: connection.execute(old))\n",
            )
        ],
        [_RECORDING + "test_pruning_removes_payloads_and_keeps_orders[sqlite]"],
    ),
    _mutant(
        "an order that became real is removed as a forged one",
        "service/ledger/forgeries.py",
        "    if not orders.hold_absent(connection, key):\n",
        "    if False:\n",
        "tests/integration/ledger/test_forgeries.py::"
        "test_an_order_that_became_real_while_nobody_could_be_asked_is_kept_and_not_looked_at_again[sqlite]",
    ),
    _mutant(
        "the ledger's file commits what is not on the disk (fsync)",
        "service/ledger/database.py",
        '"synchronous = FULL"',
        '"synchronous = OFF"',
        "tests/integration/ledger/test_ledger_faults.py::test_a_sqlite_ledger_survives_a_power_cut[sqlite]",
    ),
    # ---- the state machine ----
    _mutant(
        "a status goes back",
        "service/domain/order_state.py",
        "    if _RANK[status] > _RANK[order.status]:\n        after = replace(order, status=status",
        "    if status is not order.status:\n        after = replace(order, status=status",
        _ORDER_STATE + "test_late_pending_leaves_a_succeeded_order_alone",
    ),
    _mutant(
        "claims below the required trust count",
        "service/domain/order_state.py",
        "    if claim.trust < required:\n",
        "    if False:\n",
        _ORDER_STATE + "test_a_claim_below_the_required_trust_changes_nothing_of_the_order",
    ),
    _mutant(
        "a late answer corrects what is newer",
        "service/domain/order_state.py",
        "or order.trust is Trust.RULE or claim.stated_at > order.as_of",
        "or True",
        _ORDER_STATE + "test_an_answer_asked_before_the_callback_does_not_correct_it",
        _ORDER_STATE + "test_an_older_answer_does_not_correct_a_later_one",
    ),
    _mutant(
        "an answer settles an amount",
        "service/domain/order_state.py",
        "    if IdentityField.AMOUNT in earlier or _denies_request(order, new):\n",
        "    if _denies_request(order, new):\n",
        _ORDER_STATE + "test_an_answer_settles_no_amount",
    ),
    _mutant(
        "a question from before the announcement settles its dispute",
        "service/domain/order_state.py",
        "    return _open_dispute(known, disputes, announced_at)\n",
        "    return _open_dispute(known, disputes, announced_at.replace(year=1970))\n",
        _ORDER_STATE + "test_a_later_announcement_is_settled_only_by_a_question_asked_after_it",
    ),
    # ---- the outbox and the dispatcher ----
    _mutant(
        "who has lost the lease of a delivery settles it",
        "service/ledger/outbox.py",
        "is_held = and_(deliveries.c.fence == self.rows.number(fence), is_open_by_key(deliveries))",
        "is_held = is_open_by_key(deliveries)",
        _OUTBOX + "test_a_settlement_with_an_old_fence_is_refused[sqlite]",
    ),
    _mutant(
        "a replay leaves the lease to who has it",
        "service/ledger/outbox.py",
        '"fence": deliveries.c.fence + 1, "settled_at": None}',
        '"settled_at": None}',
        _OUTBOX + "test_a_replay_takes_the_lease_from_who_is_sending[sqlite]",
    ),
    _mutant(
        "an order's later event overtakes an earlier one",
        "service/ledger/outbox.py",
        '<= bindparam("now"), ~IS_BLOCKED, ~is_paused',
        '<= bindparam("now"), ~is_paused',
        _OUTBOX + "test_events_of_one_order_come_one_after_the_other[sqlite]",
    ),
    _mutant(
        "what waits behind a delivered event never gets its time back",
        "service/ledger/outbox.py",
        "    unblock(connection, done)\n",
        "",
        "tests/integration/ledger/test_delivery_order.py::"
        "test_a_postponed_delivery_gets_its_own_time_back_when_the_first_is_settled[sqlite-delivered]",
    ),
    _mutant(
        "a paused endpoint gets events",
        "service/ledger/outbox.py",
        '~IS_BLOCKED, ~is_paused(bindparam("of_endpoint")))',
        "~IS_BLOCKED)",
        "tests/integration/ledger/test_pauses.py::test_nothing_of_a_paused_endpoint_is_claimed_and_others_go_on[sqlite]",
    ),
    _mutant(
        "an event is sent although its lease may end meanwhile",
        "consumers/dispatcher.py",
        "        outlasts_sending = leased.ends_at - self._monotonic() >= self._endpoint.timeout_seconds\n",
        "        outlasts_sending = True\n",
        "tests/integration/consumers/test_endpoint_worker.py::"
        "test_an_event_whose_lease_may_end_before_its_time_limit_is_given_back_untried[sqlite]",
    ),
    # ---- inquiries ----
    _mutant(
        "who has lost the lease of an inquiry reschedules it",
        "service/ledger/inquiry_queue.py",
        "        if row.last_asked_at != asked.asked_at:\n",
        "        if False:\n",
        "tests/integration/ledger/test_forgeries.py::"
        "test_a_late_reply_settles_nothing_of_an_order_that_was_removed_and_came_again[sqlite]",
    ),
    _mutant(
        "a reason that came while the gateway was asked is forgotten",
        "service/ledger/inquiry_queue.py",
        "        raised_meanwhile = row.raised - raised_by_answer > asked.raised\n",
        "        raised_meanwhile = False\n",
        _INQUIRY_QUEUE + "test_a_reason_that_came_while_the_gateway_was_asked_outlives_the_answer[sqlite]",
    ),
    _mutant(
        "a question that a crash cut short is never asked again",
        "service/ledger/inquiry_queue.py",
        "        reopen_expired(connection, merchant, now)\n",
        "",
        _INQUIRY_QUEUE + "test_when_the_lease_has_run_out_it_is_asked_again_and_counted_again[sqlite]",
    ),
    _mutant(
        "one who wakes after its lease has ended asks the gateway all the same",
        "consumers/inquirer.py",
        "        if began >= lease_ends_at:\n",
        "        if False:\n",
        "tests/integration/consumers/test_frozen_inquirer.py::"
        "test_what_another_has_asked_meanwhile_is_not_asked_again_by_who_wakes",
    ),
    # ---- the gateway's client ----
    _mutant(
        "an interim answer is taken for the answer",
        "service/runtime/http_connection.py",
        "            if status >= 200:\n",
        "            if status != 100:\n",
        _INTERIM + "test_each_query_gets_the_status_that_was_sent_for_its_order",
    ),
    _mutant(
        "an answer about another order is taken",
        "service/gateway/client.py",
        "                if order.biz_order_no != biz_order_no:\n",
        "                if False:\n",
        "tests/integration/gateway/test_client_methods.py",
    ),
    _mutant(
        "every refusal of a query means that there is no such order",
        "service/gateway/client.py",
        "            elif answer.message in self._not_found_messages:\n",
        "            elif True:\n",
        "tests/integration/gateway/test_client_methods.py",
    ),
    # ---- withholds ----
    _mutant(
        "a withhold of unknown outcome is sent again",
        "service/ledger/withholds.py",
        "    if sent is not None and sent.outcome is not WithholdOutcome.NOT_DONE:\n",
        "    if sent is not None and sent.outcome not in (WithholdOutcome.NOT_DONE, WithholdOutcome.UNKNOWN):\n",
        _WITHHOLDS + "test_what_may_have_been_done_is_never_sent_again",
    ),
    _mutant(
        "a withhold that a process died over is sent again",
        "service/ledger/withholds.py",
        "    if sent is not None and sent.outcome is not WithholdOutcome.NOT_DONE:\n",
        "    if sent is not None and sent.outcome not in (WithholdOutcome.NOT_DONE, WithholdOutcome.SENDING):\n",
        _WITHHOLDS + "test_what_a_process_died_over_is_never_sent_again",
    ),
    _mutant(
        "an order that was not announced is sent",
        "service/ledger/withholds.py",
        "    if known is None or known.announced_at is None:\n",
        "    if False:\n",
        _WITHHOLDS + "test_an_order_that_is_not_announced_is_not_sent",
    ),
    _mutant(
        "the time at which an announced order is due may lie decades ahead",
        "service/charging/announce.py",
        "    if draft.answer_due_at is not None and abs(draft.answer_due_at - now) > _MAX_DUE_IN:\n",
        "    if False:\n",
        "tests/integration/api/test_announcing_orders.py",
    ),
)
