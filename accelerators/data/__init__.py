"""Cost data shipped with the package; every file is described in ``SOURCES.md`` beside it."""
