"""`sandbox`: the stand-in for RainFocus."""
