"""The one-command stack: embedded servers and the supervisor. Knows Django's settings only through the environment."""
