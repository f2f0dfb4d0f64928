"""What the numbers can say: pure functions, checked against reference libraries and by simulation."""
