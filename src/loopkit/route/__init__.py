"""Which variant: the router that chooses for every call, says with which probability, and serves the choice."""
