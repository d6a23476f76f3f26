"""The inquirer: asks the merchants' gateways, in a loop per merchant, so that none waits for another's gateway."""

import threading
from collections.abc import Mapping

import structlog

from consumers.gateway import MerchantGateway
from consumers.merchant_inquirer import MerchantInquirer
from consumers.thread_supervisor import ThreadSupervisor
from service.config.settings import InquirerSettings
from service.ledger.inquiry_queue import InquiryQueue
from service.runtime.metrics.inquirer import InquirerMetrics
from service.runtime.metrics.merchants import ClaimMetrics

_log = structlog.get_logger()

_RESTART_SECONDS = 5.0


class Inquirer:
    """Asks every merchant's gateway what is due. Any number of processes may do so at once.

    The queue's engine needs a connection per merchant, since all of them may lease or settle at the same moment.
    """

    def __init__(
        self,
        *,
        queue: InquiryQueue,
        gateways: Mapping[str, MerchantGateway],
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
    ) -> None:
        """`gateways` by merchant."""
        self._loops = {
            merchant: MerchantInquirer(
                merchant=merchant,
                queue=queue,
                gateway=gateway,
                settings=settings,
                metrics=metrics,
                claim_metrics=claim_metrics,
            ).run
            for merchant, gateway in gateways.items()
        }

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set and all questions under way have ended, within the gateways' time limits."""
        if self._loops:
            ThreadSupervisor(self._loops, restart_seconds=_RESTART_SECONDS).run(stop)
        else:
            _log.warning("no_gateways")
            stop.wait()
