"""Claims jobs, runs each in a child process, and records what the child reports."""
