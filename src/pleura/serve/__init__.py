"""pleura as a service: an API over HTTP, on one process and one net."""
