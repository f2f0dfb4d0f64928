"""What frameworks tell of themselves, as our spans."""
