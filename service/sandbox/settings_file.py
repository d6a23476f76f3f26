"""Reads `SandboxSettings` from a TOML file of its own."""

import tomllib
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from service.config.secrets import Secret
from service.config.settings import Acknowledgement
from service.sandbox.document_rules import STRICT, DocumentRule
from service.sandbox.settings import Account, CallbackStyle, EmptyResponse, Misbehaviour, SandboxSettings, Timing

_SHARE = validate.Range(min=0, max=1)
_NOT_NEGATIVE = validate.Range(min=0)
_POSITIVE = validate.Range(min=0, min_inclusive=False)


def _boolean() -> fields.Boolean:
    return fields.Boolean(truthy={True}, falsy={False})


class SandboxSettingsError(Exception):
    """The sandbox's settings cannot be used; the message names each key and what is wrong with it."""


def load_sandbox_settings(path: Path) -> SandboxSettings:
    """The settings in the TOML file at `path`. Raises SandboxSettingsError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        settings: SandboxSettings = _SandboxSchema().load(document)
    except (OSError, UnicodeDecodeError) as error:
        raise SandboxSettingsError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SandboxSettingsError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise SandboxSettingsError(f"{path}: {error}") from error
    return settings


class _Section(Schema):
    """A table of the file; what it does not name keeps the dataclass's default."""

    value: type

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.value(**data)


class _AccountSchema(_Section):
    value = Account
    ua = fields.String(required=True, validate=validate.Length(min=1))
    aes_key = fields.String(required=True, validate=validate.Length(min=1))
    pay_types = fields.List(fields.String(), required=True, validate=validate.Length(min=1))
    amount_unit = fields.String(validate=validate.OneOf(["yuan", "fen"]))
    dialect = fields.Dict(keys=fields.String(), values=fields.String())

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Account:
        return Account(**{**data, "aes_key": Secret(data["aes_key"]), "pay_types": frozenset(data["pay_types"])})


class _CallbackStyleSchema(_Section):
    value = CallbackStyle
    signed_as = fields.String()
    sent_as = fields.String()
    form = _boolean()
    upper_case_sign = _boolean()


class _TimingSchema(_Section):
    value = Timing
    settle_seconds = fields.Float(validate=_NOT_NEGATIVE)
    slow_settle_seconds = fields.Float(validate=_NOT_NEGATIVE)
    stall_seconds = fields.Float(validate=_NOT_NEGATIVE)
    repeat_after_seconds = fields.List(fields.Float(validate=_NOT_NEGATIVE))
    callback_timeout_seconds = fields.Float(validate=_POSITIVE)


class _MisbehaviourSchema(_Section):
    value = Misbehaviour
    repeat_share = fields.Float(validate=_SHARE)
    most_repeats = fields.Integer(validate=validate.Range(min=1, max=1000))
    delay_share = fields.Float(validate=_SHARE)
    most_delay_seconds = fields.Float(validate=_NOT_NEGATIVE)
    reorder_share = fields.Float(validate=_SHARE)
    drop_share = fields.Float(validate=_SHARE)
    forge_share = fields.Float(validate=_SHARE)
    forgeries_per_order = fields.Integer(validate=validate.Range(min=1, max=1000))
    lie_share = fields.Float(validate=_SHARE)
    lose_answer_share = fields.Float(validate=_SHARE)


class _AcknowledgementSchema(_Section):
    value = Acknowledgement
    body = fields.String()


class _SandboxSchema(_Section):
    value = SandboxSettings
    accounts = fields.List(fields.Nested(_AccountSchema), required=True, validate=validate.Length(min=1))
    bind = fields.String(validate=validate.Regexp(r".+:[0-9]{1,5}\Z", error="must be host:port"))
    callback = fields.Nested(_CallbackStyleSchema)
    timing = fields.Nested(_TimingSchema)
    misbehaviour = fields.Nested(_MisbehaviourSchema)
    strictness = fields.Dict(keys=fields.Enum(DocumentRule, by_value=True), values=_boolean(), load_default=dict)
    empty_responses = fields.List(fields.Enum(EmptyResponse, by_value=True), validate=validate.Length(min=1))
    fail_share = fields.Float(validate=_SHARE)
    acknowledgement = fields.Nested(_AcknowledgementSchema)
    verification_code = fields.String()
    not_found_message = fields.String(validate=validate.Length(min=1))
    seed = fields.Integer()
    max_entries = fields.Integer(validate=validate.Range(min=1, max=1_000_000))
    senders = fields.Integer(validate=validate.Range(min=1, max=256))

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> SandboxSettings:
        switches = data.pop("strictness")
        return SandboxSettings(
            **data, strictness=frozenset(rule for rule in DocumentRule if switches.get(rule, rule in STRICT))
        )
