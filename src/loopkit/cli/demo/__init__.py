"""The whole loop on a real model, as an application of loopkit's public names."""
