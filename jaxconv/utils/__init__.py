"""General helpers: files, terminal output, tables, progress bars, call signatures and timing."""
