"""How to make it better: adapters that take a variant and a dataset and give a better variant."""
