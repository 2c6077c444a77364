"""What a simulation answers: numbers, tables, pages."""
