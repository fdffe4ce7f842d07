"""What people and tools ask of a running engine over HTTP: admin API, OpenAPI document, dashboard."""

from engine.service.admin import add_admin_routes, create_admin_app, create_service_app
from engine.service.openapi import document

__all__ = ["add_admin_routes", "create_admin_app", "create_service_app", "document"]
