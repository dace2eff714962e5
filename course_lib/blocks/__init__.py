"""What networks of both halves of the book are built from."""
