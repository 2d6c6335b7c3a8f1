"""A run as one page that opens from the disk: what its network computed, learned and looked at."""
