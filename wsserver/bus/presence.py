"""Which devices are online at other nodes, of the accounts that this node serves. Pure.

Nodes tell when a device's first session with them opens, and when its last is over. Where that may
have been missed all are asked anew, and what none has confirmed since is let go (`sweep`).
"""

from __future__ import annotations

from collections.abc import Callable

Device = tuple[int, str]
"""An account's id, and its device's."""


class Elsewhere:
    """Devices of accounts, with the nodes that have them. Bounded by what those nodes bound."""

    def __init__(self) -> None:
        self._accounts: dict[int, dict[str, dict[str, int]]] = {}
        """Account, device, node, and the round in which it was said last."""
        self._round = 0

    def find(self, account_id: int) -> frozenset[str]:
        """The ids of the account's devices that are online at other nodes."""
        return frozenset(self._accounts.get(account_id, ()))

    def find_at(self, account_id: int, nodes: frozenset[str]) -> frozenset[str]:
        """Those of them that one of these nodes has."""
        devices = self._accounts.get(account_id, {})
        return frozenset(name for name, at in devices.items() if not nodes.isdisjoint(at))

    def come(self, node: str, device: Device) -> bool:
        """The node has it; gives whether it is the first."""
        account_id, device_id = device
        nodes = self._accounts.setdefault(account_id, {}).setdefault(device_id, {})
        first = not nodes
        nodes[node] = self._round
        return first

    def go(self, node: str, device: Device) -> bool:
        """The node has it no more; gives whether it was the last."""
        account_id, device_id = device
        nodes = self._accounts.get(account_id, {}).get(device_id)
        if nodes is None or nodes.pop(node, None) is None or nodes:
            return False
        self._drop(account_id, device_id)
        return True

    def forget(self, account_id: int) -> None:
        """The account is not served here any more."""
        self._accounts.pop(account_id, None)

    def begin_round(self) -> None:
        """From now on those who have devices say so anew."""
        self._round += 1

    def sweep(self) -> list[Device]:
        """Let go of what was not said in this round; gives the devices that went by that."""
        return self._drop_where(lambda node, said: said != self._round)

    def lose(self, node: str) -> list[Device]:
        """The node is gone; gives the devices that went with it."""
        return self._drop_where(lambda other, said: other == node)

    def _drop_where(self, is_over: Callable[[str, int], bool]) -> list[Device]:
        went = []
        for account_id, devices in [*self._accounts.items()]:
            for device_id, nodes in [*devices.items()]:
                for node in [node for node, said in nodes.items() if is_over(node, said)]:
                    if self.go(node, (account_id, device_id)):
                        went.append((account_id, device_id))
        return went

    def _drop(self, account_id: int, device_id: str) -> None:
        devices = self._accounts[account_id]
        del devices[device_id]
        if not devices:
            del self._accounts[account_id]
