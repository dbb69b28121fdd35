#!/usr/bin/env bash
# Makes real multi-layer images from Debian's packages, for test/real:
#   OUT/layout        OCI layout with the images `base` (1 layer) and `app` (4 layers over base)
#   OUT/app.docker.tar  `app` as `docker save` writes it
#   OUT/zstd          OCI layout with `app` in zstd layers
# Usage: make-image.sh OUT   (as root; needs mmdebstrap, umoci, skopeo)
set -euo pipefail
out=${1:?usage: make-image.sh OUT}
for tool in mmdebstrap umoci skopeo; do
  command -v "$tool" >/dev/null || { echo "make-image.sh: $tool is missing: apt-get install mmdebstrap umoci skopeo" >&2; exit 3; }
done
mkdir -p "$out"
cd "$out"
export LC_ALL=C

mmdebstrap --quiet --mode=root --variant=extract \
  --include=base-files,bash,coreutils,libc6,passwd,libcap2-bin,iputils-ping,tzdata bookworm rootfs.tar

umoci init --layout layout
umoci new --image layout:base
umoci unpack --image layout:base bundle >/dev/null
tar -C bundle/rootfs --xattrs --xattrs-include='*' -xpf rootfs.tar
umoci repack --image layout:base bundle >/dev/null
rm -rf bundle rootfs.tar

# Layers with what makes layers hard: deletions, replaced kinds, hard links, odd names, capabilities, devices.
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
mkdir -p "$root/srv/was-dir"
echo inside >"$root/srv/was-dir/file"
dd if=/dev/urandom of="$root/srv/big" bs=1M count=3 status=none
layer

rm -rf "$root/srv/data" "$root/usr/share/doc"
rm -rf "$root/srv/was-dir"
echo 'a file now' >"$root/srv/was-dir"
truncate -s 1M "$root/srv/big"
layer

mkdir -p "$root/srv/data"
echo three >"$root/srv/data/three"
rm "$root/srv/was-dir"
ln -s keep "$root/srv/was-dir"
mknod "$root/srv/null" c 1 3 2>/dev/null || true
mkfifo "$root/srv/fifo"
touch -d '2001-02-03 04:05:06.789' "$root/srv/keep/old"
setfattr -n user.colour -v blue "$root/srv/keep/old" 2>/dev/null || true
layer
rm -rf bundle

skopeo copy --quiet oci:layout:app docker-archive:app.docker.tar:example.com/real/app:1.0
skopeo copy --quiet --dest-compress-format zstd oci:layout:app oci:zstd:app 2>/dev/null || rm -rf zstd
umoci gc --layout layout >/dev/null
