"""What must not leak: patterns with validators, used by redaction before storage and by guards."""
