"""Jobs: what they are, where they run, how they are submitted, and how they fare."""
