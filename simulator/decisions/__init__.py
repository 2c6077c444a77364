"""What a policy decided: which part of a product's work is shared, skipped or kept."""
