"""What happened: calls become spans, by decorator, by span block or through a wrapped client."""
