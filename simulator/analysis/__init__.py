"""What similarity there is in the data, and what reuse can do to the answer at most."""
