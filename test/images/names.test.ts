import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { childLabels } from '../../src/images/media-types.js';
import { normalizeDockerReference, refNameOf } from '../../src/images/names.js';
import { hostPlatform, parsePlatformText, platformRank, platformText } from '../../src/images/platforms.js';

const digest = `sha256:${'a'.repeat(64)}`;

describe('Docker references', () => {
  const cases: [string, string][] = [
    ['alpine', 'docker.io/library/alpine:latest'],
    ['alpine:3.19', 'docker.io/library/alpine:3.19'],
    ['user/app', 'docker.io/user/app:latest'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest'],
    ['index.docker.io/alpine:1', 'docker.io/library/alpine:1'],
    ['localhost/x', 'localhost/x:latest'],
    ['localhost:5000/x', 'localhost:5000/x:latest'],
    ['ghcr.io/a/b/c:T_a.g-1', 'ghcr.io/a/b/c:T_a.g-1'],
    ['[::1]:5000/x', '[::1]:5000/x:latest'],
    [`alpine@${digest}`, `docker.io/library/alpine@${digest}`],
    [`alpine:3@${digest}`, `docker.io/library/alpine@${digest}`],
    ['a__b/c.d-e--f', 'docker.io/a__b/c.d-e--f:latest'],
    ['Host/x', 'Host/x:latest'],
  ];
  for (const [short, full] of cases) {
    test(`given ${short}`, () => assert.equal(normalizeDockerReference(short), full));
  }
  const bad = [
    '',
    'UPPER',
    'a b',
    'x:',
    ':tag',
    'a//b',
    '/a',
    'a/',
    'a:tag!',
    'a@sha256:short',
    'a..b',
    '-a',
    'a'.repeat(300),
    'f'.repeat(64),
  ];
  for (const text of bad) {
    test(`given ${JSON.stringify(text.slice(0, 20))}, it is InvalidArgument`, () => {
      assert.throws(
        () => normalizeDockerReference(text),
        (e) => isKind(e, 'InvalidArgument'),
      );
    });
  }

  test('given full names, what an OCI annotation holds of them', () => {
    assert.equal(refNameOf('docker.io/library/alpine:3'), '3');
    assert.equal(refNameOf('localhost:5000/x:y'), 'y');
    assert.equal(refNameOf(`docker.io/library/alpine@${digest}`), `@${digest}`);
    assert.equal(refNameOf('docker.io/library/alpine'), 'docker.io/library/alpine');
    assert.equal(refNameOf('plain'), 'plain');
  });
});

describe('platforms', () => {
  const rank = (offered: string, wanted: string): number =>
    platformRank(parsePlatformText(offered), parsePlatformText(wanted));

  test('given the spellings of one platform, they match', () => {
    for (const [a, b] of [
      ['linux/x86_64', 'linux/amd64'],
      ['linux/aarch64', 'linux/arm64/v8'],
      ['Linux/AMD64', 'linux/amd64/v1'],
      ['linux/i386', 'linux/386'],
      ['linux/arm', 'linux/arm/v7'],
      ['linux/arm/7', 'linux/arm/v7'],
    ] as const) {
      assert.ok(rank(a, b) > 0, `${a} on ${b}`);
    }
  });

  test('given others, they do not, and older ARM runs on newer but counts less', () => {
    assert.equal(rank('windows/amd64', 'linux/amd64'), 0);
    assert.equal(rank('linux/arm64', 'linux/amd64'), 0);
    assert.equal(rank('linux/amd64/v3', 'linux/amd64'), 0);
    assert.equal(rank('linux/arm/v7', 'linux/arm/v6'), 0);
    assert.ok(rank('linux/arm/v6', 'linux/arm/v7') > rank('linux/arm/v5', 'linux/arm/v7'));
    assert.ok(rank('linux/arm/v7', 'linux/arm/v7') > rank('linux/arm/v6', 'linux/arm/v7'));
    assert.ok(rank('linux/amd64', 'linux/amd64/v3') > 0);
  });

  test('given text that is no platform, it is InvalidArgument', () => {
    for (const text of ['', 'linux', 'linux/', '/amd64', 'a/b/c/d', 'a/b/']) {
      assert.throws(
        () => parsePlatformText(text),
        (e) => isKind(e, 'InvalidArgument'),
        text,
      );
    }
    assert.equal(platformText(parsePlatformText('linux/arm/v6')), 'linux/arm/v6');
    assert.equal(hostPlatform().os, 'linux');
  });
});

test('reference labels have the keys that containerd writes', () => {
  const child = (mediaType: string, n: number, annotations?: Record<string, string>) => ({
    mediaType,
    digest: `sha256:${String(n).repeat(64)}`,
    ...(annotations && { annotations }),
  });
  const prefix = 'containerd.io/gc.ref.content';
  const labels = childLabels([
    child('application/vnd.oci.image.config.v1+json', 0),
    child('application/vnd.oci.image.layer.v1.tar+gzip', 1),
    child('application/vnd.docker.image.rootfs.diff.tar.gzip', 2),
    child('application/vnd.oci.image.manifest.v1+json', 3),
    child('application/vnd.docker.distribution.manifest.v2+json', 4),
    child('application/vnd.oci.image.index.v1+json', 5),
    child('application/vnd.in-toto+json', 6),
    child('application/vnd.docker.container.image.v1+json', 7),
    child('application/vnd.oci.image.manifest.v1+json', 8, { 'io.containerd.manifest.subject': digest }),
  ]);
  assert.deepEqual(Object.keys(labels), [
    `${prefix}.config`,
    `${prefix}.l.0`,
    `${prefix}.l.1`,
    `${prefix}.m.0`,
    `${prefix}.m.1`,
    `${prefix}.0`,
    `${prefix}.1`,
    `${prefix}.config1`,
    `${prefix}.referrer.sha256.888888888888`,
  ]);
});
