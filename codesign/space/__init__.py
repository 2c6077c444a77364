"""What may be chosen: parameters, constraints, named things."""
