"""The command with all of its commands."""

# Its help lists them in the order in which they are defined, module by module.
from wsclient.command import account_commands, content_commands, device_commands, tool_commands
from wsclient.command.running import run, wsclient

__all__ = [
    "account_commands",
    "content_commands",
    "device_commands",
    "run",
    "tool_commands",
    "wsclient",
]
