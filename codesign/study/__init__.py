"""A search and its records, from the first ask to the front."""
