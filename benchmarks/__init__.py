"""What recording costs, beside a hand-written OpenTelemetry span and a bare call, in the same run."""
