"""A gateway in PHP, `tests/judge/gateway.php`, that judges the service's reading of the document by its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from tests.support.http import answers
from tests.support.ports import find_free_port
from tests.support.processes import Process, Processes

_SCRIPT = Path(__file__).parents[1] / "judge" / "gateway.php"
_WORKERS = "4"

UA = "JUDGED"
KEY = "a key of 16 char"
PAY_TYPE = "baofoo_001"


class Judge:
    """One running PHP gateway; `processes` ends it."""

    def __init__(self, processes: Processes, *, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment`: what the script is told of its dialect."""
        self.url = f"http://127.0.0.1:{find_free_port()}"
        self._state_file = folder / "judge-state.json"
        told = {
            "JUDGE_STATE": str(self._state_file),
            "JUDGE_UA": UA,
            "JUDGE_KEY": KEY,
            "JUDGE_PAY_TYPE": PAY_TYPE,
            "PHP_CLI_SERVER_WORKERS": _WORKERS,
            **environment,
        }
        address = self.url.removeprefix("http://")
        self.process: Process = processes.start_command("php", "-S", address, _SCRIPT, environment=told, name="judge")
        self.process.wait_until(lambda: answers(f"{self.url}/"))

    @property
    def calls(self) -> list[str]:
        """The methods of the requests that it understood, in order."""
        return [call["method"] for call in self._state["calls"]]

    @property
    def request_ids(self) -> list[str]:
        """Of the same requests."""
        return [call["requestId"] for call in self._state["calls"]]

    def verification_code(self, unique_code: str) -> str:
        """What the card's owner was sent."""
        code: str = self._state["bindings"][unique_code]["code"]
        return code

    def order(self, biz_order_no: str) -> Mapping[str, str]:
        """An order as the gateway has it."""
        found: Mapping[str, str] = self._state["orders"][biz_order_no]
        return found

    def settle(self, biz_order_no: str, pay_status: str, *, channel_response: str = "") -> Mapping[str, str]:
        """Make the order terminal and have it called back; how the receiver answered: `status` line and `body`."""
        wish = {"biz_order_no": biz_order_no, "pay_status": pay_status, "channel_response": channel_response}
        answer: Mapping[str, str] = urllib3.request("POST", f"{self.url}/settle", json=wish, timeout=10.0).json()
        return answer

    @property
    def _state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = json.loads(self._state_file.read_text())
        return state
