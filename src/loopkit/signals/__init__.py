"""What people said: feedback as an append-only log of events, and the fold that gives its present state."""
