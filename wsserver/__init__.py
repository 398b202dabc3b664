"""The server: keeps the wallets of an account in sync between its devices."""
