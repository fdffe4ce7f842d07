"""What one would use, or write, instead of an engine; and what nothing can be faster than."""
