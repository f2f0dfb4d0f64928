"""What is served: the registry of variants, and rollouts that promote what is better and stop what is not."""
