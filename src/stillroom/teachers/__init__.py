"""Upstreams that answer chat completions: over HTTP, and the scripted one that is shipped for trying out."""
