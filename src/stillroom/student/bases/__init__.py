"""What a student is made from, and what it is saved as."""
