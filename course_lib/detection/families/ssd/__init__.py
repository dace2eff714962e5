"""SSD and what was built on it: DSSD, FSSD, RSSD, DSOD (chapters 14, 17 and 18)."""
