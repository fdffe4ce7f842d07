"""POSTs over HTTP/1.1 connections of our own: no proxy, no redirects, no cookies, and little to pay for a request."""

from engine.adapters.raw_http.transport import RawTransport

__all__ = ["RawTransport"]
