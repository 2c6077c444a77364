"""Pages, tables and plots of a study."""
