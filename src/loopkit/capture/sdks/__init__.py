"""Where each SDK is narrow: the one or few methods under all its endpoints, and how a recorder gets into them."""
