"""The store: accounts, tokens and wallets, kept durably. `sql.SqlStore` is its entry."""
