"""How we say it to others: attribute names, and spans as OTLP protobuf, both ways."""
