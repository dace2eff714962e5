"""The book as pages, with search, glossary, bibliography and symbol index."""
