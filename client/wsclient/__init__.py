"""The client library: a wallet that stays in sync, sealed before it leaves the device."""
