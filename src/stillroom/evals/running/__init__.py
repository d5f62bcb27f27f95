"""The process of a run: puts items to a model and grades the answers. Knows no database; asks the server like any client."""
