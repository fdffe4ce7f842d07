"""One technology each, each behind one port."""
