"""What needs an extra to be installed: imported when a source loads, never by the settings."""
