"""What runs nodes: the contract in `base`, and one module for each kind."""
