"""Migrations of the schema, run by Alembic in one transaction at the start."""
