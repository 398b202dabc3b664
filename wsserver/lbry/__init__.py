"""Coming from lbryio's wallet-sync-server: its HTTP interface, and what its database holds."""
