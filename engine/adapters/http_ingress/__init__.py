"""Events in over HTTP: a core that knows no server, and its aiohttp front end."""

from engine.adapters.http_ingress.access import ANYBODY, Access, Caller, Head, KeyRing, is_loopback
from engine.adapters.http_ingress.asgi import AsgiIngress
from engine.adapters.http_ingress.body import BodyReader, Inflate
from engine.adapters.http_ingress.denials import REASONS, Denials, Denied
from engine.adapters.http_ingress.fast_listener import FastListener
from engine.adapters.http_ingress.front import add_ingress_routes, create_ingress_app, head_of
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.inner import ask_the_core, inner_listener
from engine.adapters.http_ingress.listener import REFUSED_AT_ONCE, Listener, tls_context
from engine.adapters.http_ingress.problems import TYPES, Problem, prepare
from engine.adapters.http_ingress.request import MEDIA_TYPES, IngressAnswer, IngressRequest

__all__ = [
    "ANYBODY",
    "MEDIA_TYPES",
    "REASONS",
    "REFUSED_AT_ONCE",
    "TYPES",
    "Access",
    "AsgiIngress",
    "BodyReader",
    "Caller",
    "Denials",
    "Denied",
    "FastListener",
    "Head",
    "Inflate",
    "Ingress",
    "IngressAnswer",
    "IngressRequest",
    "KeyRing",
    "Listener",
    "Problem",
    "add_ingress_routes",
    "ask_the_core",
    "create_ingress_app",
    "head_of",
    "inner_listener",
    "is_loopback",
    "prepare",
    "tls_context",
]
