#!/bin/sh
# What a lab machine runs under tini: entrypoint.sh laptop|bastion|remote
set -eu

# The device arrives with the engine host's owner and mode; this node belongs to the container.
if [ -c /dev/fuse ]; then
    chmod 666 /dev/fuse
fi

case "$1" in
laptop)
    exec sleep infinity
    ;;
bastion | remote)
    ssh-keygen -A >/dev/null
    mkdir -p /run/sshd
    if [ -e /etc/ssh/sshd_otp_config ]; then
        /usr/sbin/sshd-otp -f /etc/ssh/sshd_otp_config -E /var/log/sshd-otp.log
    fi
    # Debian's sshd_config as it is; -e sends the log to `docker logs`.
    exec /usr/sbin/sshd -D -e
    ;;
*)
    echo "unknown role: $1" >&2
    exit 2
    ;;
esac
