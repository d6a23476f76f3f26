"""Opens a request: envelope, account, sign, args (document: 公共请求参数, 加密流程描述)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.gateway.cipher import ArgsCipher
from service.gateway.errors import CallbackRefused, CipherError, MessageInvalid, RequestRefused
from service.gateway.messages import RequestMethod
from service.gateway.request_dialect import RequestDialect, SignCase
from service.gateway.schemas import REQUEST_ENVELOPE
from service.gateway.signature import verify_request
from service.gateway.tokens import JsonValue, read_object
from service.sandbox.settings import Account


class RequestRejected(Exception):
    """A request cannot be served; the message is the gateway's answer to the caller, in the gateway's language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRequest:
    """What a caller asks for, once it is certain who asks."""

    account: Account
    method: RequestMethod
    args: Mapping[str, JsonValue]


class RequestOpener:
    """Knows the accounts, with a cipher for each. Raises KeyUnusable and DialectInvalid at once."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts = {account.ua: account for account in accounts}
        self._dialects = {account.ua: RequestDialect.from_settings(account.dialect) for account in accounts}
        self._ciphers = {
            account.ua: ArgsCipher(key=account.aes_key.reveal(), dialect=self._dialects[account.ua])
            for account in accounts
        }

    def open(self, body: bytes) -> OpenedRequest:
        """The request in a raw HTTP body. Raises RequestRejected: the sign is checked before anything is decrypted."""
        try:
            envelope = REQUEST_ENVELOPE.read(read_object(body.decode("utf-8")).values)
        except UnicodeDecodeError as error:
            raise RequestRejected("请求参数错误: not UTF-8") from error
        except CallbackRefused as error:
            raise RequestRejected(f"请求参数错误: {error.detail}") from error
        except MessageInvalid as error:
            raise RequestRejected(f"请求参数错误: {error}") from error
        account = self._accounts.get(envelope.ua)
        if account is None:
            raise RequestRejected("ua不存在")
        dialect = self._dialects[account.ua]
        try:
            verify_request(
                claimed=envelope.sign,
                ua=envelope.ua,
                key=account.aes_key.reveal(),
                method=envelope.method,
                args=envelope.args,
                separator=dialect.sign_separator,
                upper_case=dialect.sign_case is SignCase.UPPER,
            )
            args = self._ciphers[account.ua].open(envelope.args)
        except RequestRefused as error:
            raise RequestRejected("签名错误") from error
        except CipherError as error:
            raise RequestRejected(f"args解密失败: {error}") from error
        return OpenedRequest(account=account, method=RequestMethod(envelope.method), args=args)
