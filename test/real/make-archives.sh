#!/usr/bin/env bash
# Makes a small image with Debian's tools, in the forms that they write, for test/real/archives.test.ts:
#   OUT/layout             OCI layout with `app` (3 layers, gzip), by umoci
#   OUT/layout.tar         the same, packed by tar as `tar -C layout .` does
#   OUT/oci-archive.tar    by skopeo
#   OUT/docker-archive.tar by skopeo
#   OUT/zstd.tar           a layout with zstd layers, by skopeo
# Usage: make-archives.sh OUT   (as root; needs umoci, skopeo, setfattr)
set -euo pipefail
out=${1:?usage: make-archives.sh OUT}
mkdir -p "$out"
cd "$out"
export LC_ALL=C

umoci init --layout layout
umoci new --image layout:app
umoci config --image layout:app --os linux --architecture "$(dpkg --print-architecture)"
umoci unpack --image layout:app bundle >/dev/null
root=bundle/rootfs
layer() { umoci repack --refresh-bundle --image layout:app bundle >/dev/null; }

mkdir -p "$root/etc" "$root/srv/data/sub" "$root/srv/keep"
echo one >"$root/srv/data/one"
echo two >"$root/srv/data/sub/two"
ln "$root/srv/data/one" "$root/srv/keep/hard"
ln -s ../data/one "$root/srv/keep/soft"
printf x >"$root/srv/name with blanks é \"quotes\""
chown 1234:4321 "$root/srv/keep"
chmod 4755 "$root/srv/keep/hard"
head -c 300000 /dev/urandom >"$root/srv/big"
layer
rm -r "$root/srv/data"
setfattr -n user.colour -v blue "$root/srv/big"
layer
mkdir "$root/srv/data"
echo three >"$root/srv/data/three"
touch -d '2001-02-03 04:05:06' "$root/srv/data/three"
layer
rm -rf bundle
umoci gc --layout layout >/dev/null

tar -C layout -cf layout.tar .
skopeo copy --quiet oci:layout:app oci-archive:oci-archive.tar:app
skopeo copy --quiet oci:layout:app docker-archive:docker-archive.tar:example.com/real/app:1.0
skopeo copy --quiet --dest-compress-format zstd oci:layout:app oci:zstd:app
tar -C zstd -cf zstd.tar .
