"""The one durable record of a sweep, in SQLite. The only SQL."""
