"""The ledger: its database, and the store with the rules of every merchant and endpoint."""

from collections.abc import Callable
from dataclasses import asdict
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from service.bootstrap.files import find_data_file
from service.config.endpoints import EndpointSettings
from service.config.settings import MerchantSettings, Settings
from service.domain.money import read_money
from service.domain.refused_withholds import RefusalRules
from service.ledger.database import make_engine
from service.ledger.decisions import EndpointRules, MerchantRules
from service.ledger.errors import LedgerUnavailable
from service.ledger.inquiry_limits import InquiryRules
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.refused_withholds import RefusedWithholds
from service.ledger.schema import make_schema_check
from service.ledger.store import LedgerStore
from service.runtime.clock import now
from service.runtime.logs import Logger

_log = Logger(__name__)


def make_ledger_engine(settings: Settings, *, pool_size: int = 2) -> Engine:
    """The ledger's database: `database_url`, or a SQLite file in the data directory. Raises UnusableDatabaseUrl."""
    if settings.database_url:
        return make_engine(settings.database_url.reveal(), pool_size=pool_size, pooled=settings.database.pooled)
    return make_engine(f"sqlite:///{find_data_file(settings, 'ledger.sqlite3')}", pool_size=pool_size)


def make_migration_engine(settings: Settings) -> Engine:
    """The same database for migrations, past its pooler where the settings say how. Raises UnusableDatabaseUrl."""
    if settings.database.migrate_url:
        return make_engine(settings.database.migrate_url.reveal())
    return make_ledger_engine(settings)


def make_store(settings: Settings, engine: Engine) -> LedgerStore:
    """The ledger, with the rules of every merchant and endpoint."""
    return LedgerStore(
        engine=engine,
        rules={slug: _merchant_rules(merchant) for slug, merchant in settings.merchants.items()},
        endpoints=[_endpoint_rules(endpoint) for endpoint in settings.endpoints],
        clock=now,
    )


def make_readiness_check(engine: Engine) -> Callable[[], str]:
    """A check, cheap to repeat, of why the ledger cannot be used; "" where it can."""
    serves = make_schema_check(engine)

    def find_trouble() -> str:
        try:
            return "" if serves() else "the ledger lacks this release's schema"
        except LedgerUnavailable as error:
            _log.warning("ledger_not_ready", reason=str(error))
            return "the ledger cannot be used"

    return find_trouble


def make_inquiry_queue(settings: Settings, engine: Engine) -> InquiryQueue:
    """The queue of inquiries, with each merchant's limits."""
    store = make_store(settings, engine)
    return InquiryQueue(
        engine=engine,
        store=store,
        rules={slug: _inquiry_rules(merchant) for slug, merchant in settings.merchants.items()},
        refusals=make_refused_withholds(settings, store),
    )


def make_refused_withholds(settings: Settings, store: LedgerStore) -> RefusedWithholds:
    """What ends orders whose withhold was refused, by the rules of those merchants that have some on."""
    return RefusedWithholds(
        rules={
            slug: RefusalRules(**asdict(refused))
            for slug, merchant in settings.merchants.items()
            if (refused := merchant.refused_withholds) is not None
        },
        apply=store.apply,
    )


def _merchant_rules(merchant: MerchantSettings) -> MerchantRules:
    above = merchant.second_person_above
    return MerchantRules(
        required_trust=merchant.required_trust,
        can_ask=merchant.gateway is not None,
        answer_due_seconds=merchant.answer_due_seconds,
        inquiry_horizon_seconds=merchant.inquiry_horizon_seconds,
        amount_field=merchant.amount_field.name if merchant.amount_field else "",
        identity=merchant.identity_fields,
        time_zone=ZoneInfo(merchant.time_zone),
        second_person_above=None if above is None else read_money(above, merchant.amount_unit),
    )


def _inquiry_rules(merchant: MerchantSettings) -> InquiryRules:
    return InquiryRules(
        min_interval_seconds=merchant.min_inquiry_interval_seconds,
        max_per_day=merchant.max_inquiries_per_day,
        max_per_minute=merchant.max_inquiries_per_minute,
        overdue_share=merchant.overdue_share,
        first_repeat_seconds=merchant.first_inquiry_repeat_seconds,
        max_repeat_seconds=merchant.max_inquiry_repeat_seconds,
    )


def _endpoint_rules(endpoint: EndpointSettings) -> EndpointRules:
    return EndpointRules(name=endpoint.name, types=endpoint.types, merchants=endpoint.merchants)
