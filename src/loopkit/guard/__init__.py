"""What may pass: checks on what goes to a model and what comes from it."""
