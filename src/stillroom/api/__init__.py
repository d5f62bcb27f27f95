"""The HTTP interface: OpenAI's and Azure's dialects of one API, and Azure's resource manager."""
