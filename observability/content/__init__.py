"""Recorded content, the worker's side: what bodies say, in bounded pieces, for an observer to make messages of.

The worker does what must be done while bytes pass: it keeps the text of a body up to a limit, notes facts in place of
media (`wire.sift`), and puts streams together (`compose`), because the scanner has each event decoded already and a
stream's bytes are twenty times its text. Everything else (redaction, messages, truncation) is an observer's work
(`observability.observer.content`).
"""
