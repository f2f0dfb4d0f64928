"""How it is going, and what is done with what was recorded: figures, the report, sensing, telling, forgetting."""
