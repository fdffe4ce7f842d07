"""The one task group: commit, coalesce, dispatch, settle, drain."""

from engine.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
