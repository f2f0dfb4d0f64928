"""What we say to models: versioned templates, and the examples shown before a question."""
