"""Pure: every decision between accepted and settled. No I/O, no clock, no randomness of its own."""
