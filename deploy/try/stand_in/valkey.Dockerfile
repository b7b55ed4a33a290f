# Stands in for a base image that cannot be pulled: see ../engine.py.
FROM refstream-stand-in:bookworm
COPY valkey-server /opt/valkey-server
# As in the original, whoever reaches the container may connect: who that is, its network says.
RUN printf '#!/bin/sh\nexec /opt/valkey-server "$@" --protected-mode no\n' > /usr/local/bin/valkey-server \
 && chmod +x /usr/local/bin/valkey-server && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli \
 && useradd --system valkey && install -d -o valkey /data
USER valkey
WORKDIR /data
CMD ["valkey-server"]
