"""What builds the container image: the model prepared, the packages installed and pruned, the size reported."""
