"""Floor 0: the vocabulary and the rules of hotpatching, in plain Python (no Django, no I/O, no clock)."""
