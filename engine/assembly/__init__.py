"""Engine: config -> adapters -> pipeline -> apps. The only room that knows both sides."""

from engine.assembly.engine import Engine
from engine.assembly.receipt import Receipt

__all__ = ["Engine", "Receipt"]
