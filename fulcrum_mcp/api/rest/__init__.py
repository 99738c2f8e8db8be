"""The REST face: Starlette routes and pydantic models."""
