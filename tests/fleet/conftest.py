"""The scenes of tests/outages serve here too: a whole engine and a whole sandbox on virtual time."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "outages"))
