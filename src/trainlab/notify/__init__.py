"""Watches the runs under `logs/` and tells somebody elsewhere what happened to them (`NOTIFY` in `.env`)."""
