"""`/v1/report`: how complete each day was."""

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from service.api.blueprint import ApiBlueprint
from service.api.request_schemas import ReportFilterSchema
from service.api.response_schemas import ReportSchema
from service.config.settings import ApiScope
from service.ledger.errors import UnknownMerchant
from service.ledger.reports import Report, Reports


def make_report(*, reports: Reports, zones: Mapping[str, tzinfo]) -> ApiBlueprint:
    """The resource. `zones`: each merchant's time zone."""
    blueprint = ApiBlueprint(
        "report", __name__, url_prefix="/v1/report", description="How complete each day was, per merchant."
    )

    @blueprint.route("")
    @blueprint.operation("readReport", scope=ApiScope.READ, problems={404: "The merchant is not configured."})
    @blueprint.arguments(ReportFilterSchema, location="query")
    @blueprint.response(200, ReportSchema)
    def read_report(query: dict[str, Any]) -> Report:
        """Report how complete some days were, and name every order that is not final

        Each day is a day in the merchant's own time zone. Orders are counted on the day on which they became known,
        with their present state.
        """
        merchant = query.pop("merchant", None)
        if merchant is not None and merchant not in zones:
            raise UnknownMerchant(merchant)
        return reports.read_report(zones, **query, only=() if merchant is None else [merchant])

    return blueprint
