"""Everything that is made from the chapters: their outputs, the slides, the book, the table in the README."""
