"""The admin API, the dashboard and the OpenAPI document; acts through the Control port."""
