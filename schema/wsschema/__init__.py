"""The contract between a wallet-sync server and its clients: messages, errors, limits, codec."""
