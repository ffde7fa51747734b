"""Serving: the gateway and what runs it, the engines, the request log and the page."""
