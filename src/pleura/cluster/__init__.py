"""The verbs on a Ray cluster: the same work in the same parts, on other machines. Only `--ray` imports this."""
