"""Many sequences at once: what rows in one pass cost, engines beside each other, and servers beside each other."""
