import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { cpuVariant } from '../../src/images/cpu.js';
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

  test('given full names, what an OCI annotation has of them', () => {
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

  /** What is taken of these on a host, best first. */
  const order = (wanted: string, offered: string[]): string[] =>
    offered.filter((o) => rank(o, wanted) > 0).sort((a, b) => rank(b, wanted) - rank(a, wanted));

  test('given an index of many platforms, what runs is taken in the order of containerd', () => {
    const amd64 = [
      'linux/386',
      'linux/amd64',
      'linux/amd64/v2',
      'linux/amd64/v3',
      'linux/amd64/v4',
      'linux/arm64',
    ];
    const levels = (...names: string[]): string[] => names.map((name) => `linux/${name}`);
    assert.deepEqual(order('linux/amd64/v3', amd64), levels('amd64/v3', 'amd64/v2', 'amd64', '386'));
    assert.deepEqual(order('linux/amd64/v2', amd64), levels('amd64/v2', 'amd64', '386'));
    assert.deepEqual(order('linux/amd64', amd64), levels('amd64', '386'));
    assert.deepEqual(order('linux/386', amd64), levels('386'));
    const arm = [
      'arm/v5',
      'arm/v6',
      'arm',
      'arm/v8',
      'arm64',
      'arm64/v8.2',
      'arm64/v8.6',
      'arm64/v9',
      'arm64/v9.1',
      'amd64',
    ].map((a) => `linux/${a}`);
    assert.deepEqual(order('linux/arm64', arm), levels('arm64', 'arm/v8', 'arm', 'arm/v6', 'arm/v5'));
    assert.deepEqual(
      order('linux/arm64/v9', arm),
      levels('arm64/v9', 'arm64/v8.2', 'arm64', 'arm/v8', 'arm', 'arm/v6', 'arm/v5'),
    );
    assert.deepEqual(
      order('linux/arm64/v9.1', arm).slice(0, 3),
      levels('arm64/v9.1', 'arm64/v9', 'arm64/v8.6'),
    );
    assert.deepEqual(order('linux/arm/v6', arm), levels('arm/v6', 'arm/v5'));
    assert.deepEqual(order('linux/armhf', arm), levels('arm', 'arm/v6', 'arm/v5'));
    assert.deepEqual(order('linux/armel', arm), levels('arm/v6', 'arm/v5'));
    assert.deepEqual(
      order('linux/riscv64/rva23', ['linux/riscv64', 'linux/riscv64/rva23', 'linux/riscv64/x']),
      levels('riscv64/rva23', 'riscv64'),
    );
    assert.deepEqual(order('linux/ppc64', ['linux/ppc64le']), []);
    assert.equal(
      rank('linux/amd64', 'linux/amd64/v99999999999'),
      rank('linux/amd64', 'linux/amd64/v99999999999'),
    );
  });

  test('given /proc/cpuinfo, the level is what its flags make', () => {
    const v2 = 'fpu sse sse2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3';
    const v3 = `${v2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave`;
    const info = (flags: string): string =>
      `processor\t: 0\nmodel name\t: x\nflags\t\t: ${flags}\n\nprocessor\t: 1\n`;
    const level = (flags: string) => cpuVariant('amd64', info(flags));
    assert.deepEqual([level('fpu sse sse2'), level(v2), level(v3)], ['v1', 'v2', 'v3']);
    assert.equal(level(`${v3} avx512f avx512bw avx512cd avx512dq avx512vl`), 'v4');
    assert.equal(level(`${v3.replace('popcnt', '')} avx512f`), 'v1', 'a level needs those below');
    assert.equal(cpuVariant('amd64', ''), 'v1');
    assert.equal(
      cpuVariant('arm', 'Processor: ARMv6-compatible processor rev 7\nCPU architecture: 7\n'),
      'v6',
    );
    assert.equal(cpuVariant('arm', 'model name\t: ARMv7 Processor\nCPU architecture: 7\n'), 'v7');
    assert.deepEqual(
      [cpuVariant('arm', ''), cpuVariant('arm64', 'CPU architecture: 8'), cpuVariant('s390x', '')],
      [undefined, undefined, undefined],
    );
  });

  test('given text that is not a platform, it is InvalidArgument', () => {
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
