"""The pages: a partner's portal at `/portal` and an administrator's desk at `/admin`, rendered on the server.

They are a client of the four HTTP APIs like any other: each request of a signed-in browser asks them with a token of
that browser's user, so who may see and do what is decided in the APIs and nowhere else. Nothing is kept here: the
session is a signed cookie. See docs/pages.md and docs/decisions/0016.
"""
