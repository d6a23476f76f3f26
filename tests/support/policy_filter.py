"""NetworkPolicies carried out: a packet filter for what each role's processes connect to, made of what was rendered."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.chart import Manifest

_TABLE = "policies"
_REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """A role, told apart by the user that its processes run as."""

    role: str
    user: int
    policy: Manifest
    #: Where the pods are that the policy's rules may select, all of them alike: the release's.
    addresses: Sequence[str] = field(default_factory=tuple)


class PolicyFilter:
    """Refuses at once what Kubernetes' network would drop, and counts connections. For a network of one's own.

    Of the rules: the ports of TCP and UDP, and peers that are pods of the release. An `ipBlock` or another namespace is
    anywhere.
    """

    def __init__(self, roles: Sequence[Filtered], *, servers: Sequence[int]) -> None:
        """`servers` are the ports on 127.0.0.1 that stand for what is outside; the others there are a pod's own.

        pika, for one, connects to itself, and no policy is about that.
        """
        outside = ", ".join(map(str, servers))
        lines = [f"table inet {_TABLE} {{", "chain out {", "type filter hook output priority 0; policy accept;"]
        # A policy is about who may connect; answers go where the connection came from.
        lines.append("ct state established,related accept")
        for role in roles:
            lines += [
                f"meta skuid {role.user} {_peers(rule, role.addresses)}{port['protocol'].lower()} dport {port['port']}"
                f' counter accept comment "{role.role} {port["port"]}"'
                for rule in role.policy["spec"]["egress"]
                for port in rule["ports"]
            ]
            lines.append(f"meta skuid {role.user} ip daddr 127.0.0.1 tcp dport != {{ {outside} }} accept")
            lines.append(f'meta skuid {role.user} counter reject comment "{role.role} {_REFUSED}"')
        self._nft("-f", "-", given="\n".join([*lines, "}", "}", ""]))

    def connections(self) -> Mapping[tuple[str, int], int]:
        """How often each role connected to each port that it may connect to."""
        return {(role, int(port)): count for (role, port), count in self._counts().items() if port != _REFUSED}

    def refused(self) -> Mapping[str, int]:
        """How often each role tried what it may not."""
        return {role: count for (role, port), count in self._counts().items() if port == _REFUSED}

    def _counts(self) -> Mapping[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for item in json.loads(self._nft("--json", "list", "table", "inet", _TABLE))["nftables"]:
            rule = item.get("rule", {})
            if "comment" in rule:
                role, port = rule["comment"].split()
                (counter,) = [part["counter"] for part in rule["expr"] if "counter" in part]
                # UDP and TCP of one port are one.
                counts[role, port] = counts.get((role, port), 0) + counter["packets"]
        return counts

    @staticmethod
    def _nft(*arguments: str, given: str = "") -> str:
        done = subprocess.run(["nft", *arguments], input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"nft {' '.join(arguments)} failed:\n{done.stderr}{given}"
        return done.stdout


def _peers(rule: Manifest, addresses: Sequence[str]) -> str:
    peers = rule.get("to", [])
    if any("namespaceSelector" in peer or "ipBlock" in peer for peer in peers) or not peers:
        return ""
    return f"ip daddr {{ {', '.join(addresses)} }} "
