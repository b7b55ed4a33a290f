"""The `refstream` command. One module per command; `main.py` is the table of contents."""
