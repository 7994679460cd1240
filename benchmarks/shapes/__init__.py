"""What an answer in shape costs, and what its forced tokens save."""
