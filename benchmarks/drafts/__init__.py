"""What drafts save where answers copy, and cost where they do not."""
