"""What to learn from: captured calls and what was said of them, as immutable datasets with a report."""
