"""Graders: what was asked and answered goes in, a grade comes out. Knows no database and no HTTP."""
