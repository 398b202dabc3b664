"""The command with all of its commands, in the order in which the help lists them."""

from wsclient.command import account_commands, device_commands, wallet_commands
from wsclient.command.running import run, wsclient

__all__ = ["account_commands", "device_commands", "run", "wallet_commands", "wsclient"]
