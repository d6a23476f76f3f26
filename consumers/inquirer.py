"""From the agenda to the gateways: one asker per merchant, so that none waits for another's gateway."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from consumers.asker import Asker
from consumers.gateway import Gateway
from consumers.thread_supervisor import ThreadSupervisor
from service.config.settings import InquirerSettings
from service.ledger.inquiry_queue import InquiryQueue
from service.runtime.metrics.claims import ClaimMetrics
from service.runtime.metrics.inquirer import InquirerMetrics

_log = structlog.get_logger()

_RESTART_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedGateway:
    """A merchant's gateway, and the longest that it may take to answer."""

    gateway: Gateway
    timeout_seconds: float


class Inquirer:
    """Asks every merchant's gateway what is due. Any number of processes may do so at once.

    The agenda's engine needs a connection per merchant, since all of them may claim or settle at the same moment.
    """

    def __init__(
        self,
        *,
        agenda: InquiryQueue,
        gateways: Mapping[str, AskedGateway],
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
    ) -> None:
        """`gateways` by merchant."""
        self._askers = {
            merchant: Asker(
                merchant=merchant,
                agenda=agenda,
                gateway=asked.gateway,
                timeout_seconds=asked.timeout_seconds,
                settings=settings,
                metrics=metrics,
                claim_metrics=claim_metrics,
            )
            for merchant, asked in gateways.items()
        }

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set and what is being asked has ended, within the gateways' time limits."""
        if self._askers:
            members = {merchant: asker.run for merchant, asker in self._askers.items()}
            ThreadSupervisor(members, restart_seconds=_RESTART_SECONDS).run(stop)
        else:
            _log.warning("no_gateways")
            stop.wait()
