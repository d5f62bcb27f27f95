"""Teacher beside student: what runs found, compared and written as a page."""
