"""What makes a good training file of rows: no duplicates, no refusals, a fair split."""
