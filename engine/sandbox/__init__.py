"""A RainFocus stand-in: a real HTTP server with the token endpoint, the attendee store and faults on demand."""
