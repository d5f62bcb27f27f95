"""What lasts: one database and one folder of blobs."""
