"""Students behind a chat API."""
