"""How good is it: evaluators, and experiments that compare variants on the same examples."""
