# Stands in for a base image that cannot be pulled: see ../engine.py.
FROM refstream-stand-in:bookworm
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
