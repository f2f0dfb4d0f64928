"""Where else it goes: OTLP over HTTP, through a spool on disk."""
