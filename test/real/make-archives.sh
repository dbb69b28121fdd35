#!/usr/bin/env bash
# Makes a small image with Debian's tools, in the forms that they write, for test/real/archives.test.ts:
#   OUT/layout             OCI layout with `app` (3 layers, gzip), by umoci
#   OUT/layout.tar         the same, packed by tar as `tar -C layout .` does
#   OUT/oci-archive.tar    by skopeo
#   OUT/docker-archive.tar by skopeo
#   OUT/zstd.tar           a layout with zstd layers, by skopeo
#   OUT/chunked.tar        a layout with zstd:chunked layers, by skopeo
# and where buildah and podman are:
#   OUT/buildah-oci.tar, OUT/buildah-docker.tar      `buildah push`
#   OUT/podman-oci.tar, OUT/podman-docker.tar        `podman save`
#   OUT/podman-multi.tar                             `podman save -m`, of two images
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
skopeo copy --quiet --dest-compress-format zstd:chunked oci:layout:app oci:chunked:app
tar -C chunked -cf chunked.tar .

if command -v buildah >/dev/null && command -v podman >/dev/null; then
  # podman takes a run directory of 50 characters at most.
  state=$(mktemp -d "${TMPDIR:-/tmp}/b.XXXXXX")
  trap 'rm -rf "$state"' EXIT
  store=(--root "$state/s" --runroot "$state/r" --storage-driver vfs)
  name=example.com/real/app:1.0
  buildah "${store[@]}" tag "$(buildah "${store[@]}" pull --quiet oci:layout:app)" "$name"
  buildah "${store[@]}" commit --quiet "$(buildah "${store[@]}" from scratch)" example.com/real/other:2 >/dev/null
  buildah "${store[@]}" push --quiet "$name" oci-archive:buildah-oci.tar:app
  buildah "${store[@]}" push --quiet "$name" "docker-archive:buildah-docker.tar:$name"
  podman "${store[@]}" save --quiet --format oci-archive -o podman-oci.tar "$name"
  podman "${store[@]}" save --quiet --format docker-archive -o podman-docker.tar "$name"
  podman "${store[@]}" save --quiet -m -o podman-multi.tar "$name" example.com/real/other:2
fi
