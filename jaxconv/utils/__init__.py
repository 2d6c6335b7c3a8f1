"""Files, text and tables: helpers that know nothing of networks."""
