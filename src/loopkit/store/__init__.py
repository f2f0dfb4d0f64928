"""Where it lies: the embedded store, SQLite by default."""
