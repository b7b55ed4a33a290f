# Stands in for a base image that cannot be pulled: see ../engine.py.
FROM refstream-stand-in:bookworm
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
