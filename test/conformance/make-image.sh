#!/usr/bin/env bash
# Makes real images from Debian's packages for the sessions on both servers:
#   OUT/layout          OCI layout with `base` (1 layer) and `app` (3 layers over base)
#   OUT/layout.tar      the same as a tar
#   OUT/app.docker.tar  `app` as `docker save` writes it
# Unlike test/real's image it holds only what containerd 1.6 can unpack (it cannot replace a directory by a file).
# Usage: make-image.sh OUT   (as root; needs mmdebstrap, umoci, skopeo, setfattr)
set -euo pipefail
out=${1:?usage: make-image.sh OUT}
mkdir -p "$out"
cd "$out"
export LC_ALL=C

mmdebstrap --quiet --mode=root --variant=extract \
  --include=base-files,bash,coreutils,libc6,passwd,libcap2-bin,iputils-ping bookworm rootfs.tar

umoci init --layout layout
umoci new --image layout:base
umoci unpack --image layout:base bundle >/dev/null
tar -C bundle/rootfs --xattrs --xattrs-include='*' -xpf rootfs.tar
umoci repack --image layout:base bundle >/dev/null
rm -rf bundle rootfs.tar

umoci tag --image layout:base app
umoci unpack --image layout:app bundle >/dev/null
root=bundle/rootfs
layer() { umoci repack --refresh-bundle --image layout:app bundle >/dev/null; }

mkdir -p "$root/srv/data/sub" "$root/srv/keep"
echo one >"$root/srv/data/one"
echo two >"$root/srv/data/sub/two"
ln "$root/srv/data/one" "$root/srv/keep/hard"
ln -s ../data/one "$root/srv/keep/soft"
printf 'x' >"$root/srv/name with blanks é \"quotes\""
chown 1234:4321 "$root/srv/keep"
chmod 4755 "$root/srv/keep/hard"
dd if=/dev/urandom of="$root/srv/big" bs=1M count=3 status=none
layer

rm -rf "$root/srv/data" "$root/usr/share/doc"
truncate -s 1M "$root/srv/big"
layer

mkdir -p "$root/srv/data"
echo three >"$root/srv/data/three"
mknod "$root/srv/null" c 1 3
mkfifo "$root/srv/fifo"
touch -d '2001-02-03 04:05:06.789' "$root/srv/keep/old"
setfattr -n user.colour -v blue "$root/srv/keep/old"
layer
rm -rf bundle

skopeo copy --quiet oci:layout:app docker-archive:app.docker.tar:example.com/real/app:1.0
umoci gc --layout layout >/dev/null
tar -C layout --sort=name -cf layout.tar .
