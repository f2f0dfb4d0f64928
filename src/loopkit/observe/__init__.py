"""How it is going: figures by segment, failures, and the report."""
